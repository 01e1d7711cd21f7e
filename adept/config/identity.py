"""What a model and a file are, apart from where they lie: parts of a run's id."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path


def model_label(model: str) -> str:
    """A model's short name: the last part of its id or folder, in lower case."""
    return Path(model).name.lower()


@functools.cache
def model_identity(model: str) -> str:
    """Alias or hub id as it is; a local folder by its name, config, file sizes and samples of its weights, not by where
    it lies.
    """
    folder = Path(model)
    if not os.path.isdir(folder):  # not folder.is_dir(): it raises OSError for a name that no folder can have
        return model
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in {".json", ".safetensors", ".bin"}):
        digest.update(f"{path.name}:{path.stat().st_size}".encode())
        if path.name == "config.json":
            digest.update(path.read_bytes())
        elif path.suffix != ".json":
            with open(
                path, "rb"
            ) as file:  # 64 places tell two fine-tuned models apart; all bytes of a large one would take minutes
                for part in range(64):
                    file.seek(path.stat().st_size * part // 64)
                    digest.update(file.read(4096))
    return f"{folder.name}@{digest.hexdigest()[:12]}"


@functools.cache  # a file that is edited while its run trains does not move the record
def file_identity(path: str) -> str:
    """A digest of the file's content."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
