"""Names that transformers, PEFT and their example scripts have for our options."""

from __future__ import annotations

from collections.abc import Iterable

from adept.base.errors import nearest

OTHER_NAMES = {
    "learning_rate": "prompt_lr and offset_lr, or lr for methods with one rate",
    "lr_scheduler_type": "schedule",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "max_steps": "steps",
    "max_train_steps": "steps",
    "train_batch_size": "batch_size",
    "per_device_train_batch_size": "batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "gradient_accumulation_steps": "grad_accum",
    "gradient_checkpointing": "checkpoint_activations",
    "warmup_ratio": "warmup_steps",
    "num_warmup_steps": "warmup_steps",
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "adam_epsilon": "eps",
    "max_seq_length": "max_source_len",
    "max_seq_len": "max_source_len",
    "max_length": "max_source_len",
    "max_source_length": "max_source_len",
    "max_target_length": "max_target_len",
    "generation_max_length": "max_new_tokens",
    "model_name_or_path": "model",
    "model_name": "model",
    "dataset_name": "task, or task_file for data of your own",
    "task_name": "task",
    "train_file": "task_file",
    "peft_type": "method",
    "num_virtual_tokens": "prompt_len",
    "lora_r": "rank",
    "lora_rank": "rank",
    "output_dir": "results_dir",
    "logging_steps": "log_every",
    "eval_steps": "eval_every",
    "save_steps": "save_every",
    "report_to": "track",
    "run_name": "wandb_group",
    "bf16": "precision bf16",
    "fp16": "precision bf16",
    "tf32": "precision tf32",
    "torch_compile": "compile",
    "max_train_samples": "few_shot",
    "max_eval_samples": "eval_rows",
    "resume_from_checkpoint": "(nothing: the same command goes on from its last checkpoint)",
    "overwrite_output_dir": "rerun",
}
"""{their name: ours}."""


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of an error line for an unknown option: our name for it, else the nearest known one."""
    ours = OTHER_NAMES.get(name.replace("-", "_"))
    return f"here it is {ours}" if ours else nearest(name, known)
