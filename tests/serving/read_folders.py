"""Reads exported folders with transformers and PEFT alone: run by `python -I`, from which this project is out of reach.

stdin: {"libraries": folder or null, "cases": [{"folder", "base", "rows", "causal", "texts", "alone"}]}. stdout: a list
of {"ids", "logits", "answers", "chats", "mass", "printed"}. base: null for a plain folder, else the base model of an
adapter; rows: what the base is resized to, or null. alone: one text at a time.
"""

import contextlib
import io
import json
import os
import re
import sys
import warnings

request = json.load(sys.stdin)
if request["libraries"]:
    sys.path.insert(0, request["libraries"])
try:
    import adept  # noqa: F401

    sys.exit("this process can import the project")
except ImportError:
    pass

import torch  # noqa: E402
import transformers  # noqa: E402

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)


def load(case):
    kind = transformers.AutoModelForCausalLM if case["causal"] else transformers.AutoModelForSeq2SeqLM
    model = kind.from_pretrained(case["base"] or case["folder"]).eval()
    if case["base"] is None:
        return model
    import peft

    model.generation_config = transformers.GenerationConfig.from_pretrained(case["folder"])
    if case["rows"]:
        first = len(model.get_input_embeddings().weight)
        model.resize_token_embeddings(case["rows"], mean_resizing=False)
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.weight.data[first:] = table.weight.data[:first].float().mean(0)
    return peft.PeftModel.from_pretrained(model, case["folder"]).eval()


@torch.no_grad()
def read(case):
    tokenizer, model = transformers.AutoTokenizer.from_pretrained(case["folder"]), load(case)
    answers, logits = [], []
    for texts in [[text] for text in case["texts"]] if case["alone"] else [case["texts"]]:
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        settings = {"output_logits": True, "return_dict_in_generate": True}
        output = model.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **settings)
        start = batch.input_ids.shape[1] if case["causal"] else 0
        answers += tokenizer.batch_decode(output.sequences[:, start:], skip_special_tokens=True)
        logits += output.logits[0].tolist()
    chats = []
    if tokenizer.chat_template:
        for text in case["texts"]:
            chat = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False)
            chats.append(tokenizer(chat, add_special_tokens=False).input_ids)
    return {
        "ids": tokenizer(case["texts"], truncation=True).input_ids,
        "logits": logits,
        "answers": [answer.strip() for answer in answers],
        "chats": chats,
        "printed": printed(case["folder"]),
        "length": len(tokenizer),
    }


def printed(folder):
    """What the code of the folder's README.md prints."""
    with open(f"{folder}/README.md", encoding="utf-8") as file:
        (code,) = re.findall(r"```python\n(.*?)```", file.read(), re.DOTALL)
    os.chdir(os.path.dirname(folder))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})  # written by the export that is tested
    return out.getvalue().strip()


found = [read(case) for case in request["cases"]]
print(json.dumps({"version": transformers.__version__, "found": found}))
