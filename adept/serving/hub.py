"""Puts an adapter folder or an exported folder on the Hugging Face hub, with its card."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adept.base.errors import UserError, first_line
from adept.base.options import is_place
from adept.config.run import OPTIONS, RunConfig
from adept.runs.adapter import DESCRIPTION, TASK_FILE, WEIGHTS, find_adapter
from adept.runs.record import read_record
from adept.serving.card import CARD, folder_form, model_card
from adept.serving.load import read_config

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def push(
    folder: str | Path,
    repository: str,
    config: RunConfig,
    record: Mapping[str, Any] | None = None,
    *,
    public: bool = False,
    license: str | None = None,
) -> str:
    """Uploads the folder in one commit and returns the repository's address.

    folder: of an adapter (its weights, description, task file and card go up; predictions and logs do not), or what
    `export` wrote. repository: OWNER/NAME, made as a private one where it is not there. config, record: of the run
    (adept/serving/card.py). license: an id such as "apache-2.0".

    Raises UserError for weights of the base model without a license, a repository that is public against the wish, and
    what the hub refuses.
    """
    folder = Path(folder)
    form = folder_form(folder)
    require_pushable(repository, license, holds_base=form == "plain" or config.method_options.trains_model)
    card = model_card(folder, config, record, license=license, repository=repository)
    files = dict(published_files(folder)) if form == "adept" else dict(all_files(folder))
    return upload(repository, {**files, CARD: card.encode()}, f"{config.method} on {config.task}", public=public)


def require_pushable(repository: str, license: str | None, *, holds_base: bool) -> None:
    """Raises UserError for what is no repository, and for weights of a base model (holds_base) without a license."""
    if not REPOSITORY.fullmatch(repository):
        raise UserError(f"'{repository}' is no repository; name it OWNER/NAME")
    if holds_base and license is None:
        raise UserError(
            "what would be pushed holds the base model's weights, which may be passed on under their own license: "
            "--license ID names it, such as apache-2.0"
        )


def trained_run(name: str, results_dir: str) -> tuple[Path, RunConfig, dict | None]:
    """(adapter folder, configuration, record where there is one) of a run id, or of an adapter folder.

    Raises UserError where there is no adapter, or where it cannot be read.
    """
    folder = find_adapter(name, results_dir)
    config = read_config(folder)
    record = read_record(str(folder.parent.parent), folder.name) if folder.parent.name == "runs" else None
    return folder, config, record


def published_files(folder: Path) -> Iterator[tuple[str, Path | bytes]]:
    """(name, content) of what others need of an adapter folder. Its description names no folder of this machine."""
    yield WEIGHTS, folder / WEIGHTS
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    description["config"] = {
        name: value for name, value in description["config"].items() if name in OPTIONS and not is_place(OPTIONS[name])
    }
    for name in ("model", "init_from", "task_file"):
        if (value := description["config"].get(name)) is not None and os.path.exists(value):
            description["config"][name] = Path(value).name
    if description["config"].get("task_file") is not None:
        description["config"]["task_file"] = TASK_FILE
    description["base_model"] = description["config"]["model"]
    yield DESCRIPTION, (json.dumps(description, indent=1) + "\n").encode()
    if (folder / TASK_FILE).is_file():
        yield TASK_FILE, folder / TASK_FILE


def all_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of every file that is not hidden."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            yield name, path


def upload(repository: str, files: Mapping[str, Path | bytes], message: str, *, public: bool) -> str:
    """Uploads {name: file or content} in one commit and returns the repository's address."""
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        private = api.model_info(repository).private
        if not public and private is False:
            raise UserError(f"{repository} is there and public: --public says that it may be seen by everyone")
        operations = [
            huggingface_hub.CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in files.items()
        ]
        api.create_commit(repository, operations, commit_message=message)
    except UserError:
        raise
    except Exception as error:  # the library's errors for what a hub may answer have no base of their own
        raise UserError(
            f"the hub did not take {repository}: {first_line(error)}; 'hf auth login' or HF_TOKEN names your account"
        ) from error
    return f"{api.endpoint}/{repository}"
