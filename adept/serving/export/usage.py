"""What an exported folder's README.md says: the lines that use it, and what they must not do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from adept.models.loading import locate
from adept.serving.export.tokenizer import IdLayout
from adept.training.evaluation import max_new_tokens, temperature
from adept.training.session import Session

PLAIN = """\
import transformers

tokenizer = transformers.AutoTokenizer.from_pretrained("{folder}")
model = transformers.{kind}.from_pretrained("{folder}", dtype="{dtype}")
batch = tokenizer({sources}, padding=True, truncation=True, return_tensors="pt")
output = model.generate(**batch)
print(tokenizer.batch_decode(output{answer}, skip_special_tokens=True))
"""

ADAPTER = """\
import peft, transformers

tokenizer = transformers.AutoTokenizer.from_pretrained("{folder}")
base = transformers.{kind}.from_pretrained({base!r}, dtype="{dtype}")
base.generation_config = transformers.GenerationConfig.from_pretrained("{folder}")
{resize}model = peft.PeftModel.from_pretrained(base, "{folder}")
batch = tokenizer({sources}, padding=True, truncation=True, return_tensors="pt")
output = model.generate(**batch)
print(tokenizer.batch_decode(output{answer}, skip_special_tokens=True))
"""

RESIZE = """\
base.resize_token_embeddings({rows}, mean_resizing=False)  # rows for the prompt, which start as the table's mean
for table in (base.get_input_embeddings(), base.get_output_embeddings()):
    table.weight.data[{first}:] = table.weight.data[:{first}].float().mean(0)
"""


def usage(
    session: Session, folder: str, form: str, layout: IdLayout, texts: Sequence[str], *, compact: bool, cue: bool,
    chats: bool,
) -> str:  # fmt: skip
    """The Markdown text of README.md. texts: two sources to show. chats: its chat template gives the session's ids."""
    config = session.config
    code = snippet(session, folder, form, layout, texts if cue else [f"{text}\n{session.task.cue}" for text in texts])
    digest = f" (weights {session.base_weights})" if session.base_weights else ""
    lines = [
        f"# {config.method} on {config.task}",
        f"{config.model}{digest}, trained by method {config.method}. A source looks like those below.",
        f"```python\n{code}```",
        *notes(session, form, layout, compact=compact, cue=cue, chats=chats),
    ]
    return "\n\n".join(lines) + "\n"


def snippet(session: Session, folder: str, form: str, layout: IdLayout, texts: Sequence[str]) -> str:
    """Python code that answers two sources with the folder and without this project."""
    causal = session.capabilities.continues_source
    resize = ""
    if form != "plain" and layout.rows > layout.source_rows:
        resize = RESIZE.format(rows=layout.rows, first=layout.source_rows)
    return (PLAIN if form == "plain" else ADAPTER).format(
        folder=folder,
        kind="AutoModelForCausalLM" if causal else "AutoModelForSeq2SeqLM",
        base=locate(session.config.model),
        dtype="bfloat16" if session.config.precision == "bf16" else "float32",
        resize=resize,
        sources=[*texts[: 1 if causal and form == "prompt_tuning" else 2]],
        answer='[:, batch["input_ids"].shape[1] :]' if causal else "",
    )


def notes(
    session: Session, form: str, layout: IdLayout, *, compact: bool, cue: bool, chats: bool
) -> Iterator[str]:  # fmt: skip
    """What a user of the folder has to know, a paragraph each."""
    causal = session.capabilities.continues_source
    if layout.prompt_ids:
        yield (
            "The tokenizer writes the trained prompt in front of every text; add_special_tokens=False leaves it out. "
            "text_target= would get it, too: the folder answers and does not train."
        )
    if causal and session.task.cue and cue:
        yield f"It also writes the cue {session.task.cue!r} behind the source, on a line of its own."
    elif causal and session.task.cue:
        yield f"No cue is written: a source ends with a line break and {session.task.cue!r}."
    if causal and not chats:
        yield "There is no chat template: this tokenizer joins the source's end with what a template puts behind it."
    yield (
        f"generation_config.json is greedy, {max_new_tokens(session)} new tokens. vLLM and other servers do not read "
        "all of it: temperature 0 there."
    )
    if session.config.scoring == "likelihood":
        yield "The run was scored by the likelihood of its labels; this folder generates, which can answer otherwise."
    if temperature(session):
        yield f"The run's test samples at temperature {temperature(session)}; this folder decodes greedily."
    if form != "plain" and Path(locate(session.config.model)).is_dir():
        yield "The base model is a folder where this was written: elsewhere the same weights have another path."
    if form == "plain" and layout.shift:
        yield (
            f"Ids of sources are larger by {layout.shift:,} than those of answers, because both have rows in one "
            "table. transformers 5 warns that it does not tie them, which is right; tie_weights() and "
            "resize_token_embeddings() would spoil the model."
        )
    if compact:
        yield (
            "Encoder and decoder have tables of their own, which transformers before 5 takes for one: its answers are "
            "then wrong without a warning. tie_weights(), resize_token_embeddings() and tie_word_embeddings=false in "
            "config.json spoil it as well."
        )
    if form == "peft" and layout.prompt_ids:
        yield (
            f"The prompt's rows lie at the ids {layout.prompt_ids[0]} to {layout.prompt_ids[-1]}, which no text of the "
            "task has. merge_and_unload() is wrong where the head shares the embedding's table."
        )
    if form == "prompt_tuning" and causal:
        yield "PEFT puts the prompt in front of the padding: one text at a time, or texts of equal length."
