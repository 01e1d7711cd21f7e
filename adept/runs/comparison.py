"""Whether a finished run is the run that is asked for: same options, same data, same base model.

A run id says what was asked, not what it was made from: it leaves out options at their defaults, which may have been
others, and it knows neither the data's files nor a hub's newest revision.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from adept.base.atomic_files import report_disk_errors
from adept.base.console import print_status
from adept.base.digests import file_digest
from adept.base.errors import UserError
from adept.base.options import is_place
from adept.config.identities import base_identity
from adept.config.run import OPTIONS, RunConfig, task_of
from adept.data.dataset import summarise_data
from adept.data.sources import data_files
from adept.models.loading import cached_commit
from adept.runs.adapter import find_adapter, weights_file
from adept.runs.claim import claim_run
from adept.runs.layout import record_path, run_folder

COMPARED_AS_FILES = ("model", "task_file", "init_from")
"""Options that name files, which count by what they hold, not by where they lie."""


def what_it_is_made_from(config: RunConfig) -> dict:
    """The part of a record's provenance that says which base model and which adapter a run starts from."""
    made_from = {"base_model": base_identity(config.model)}
    if config.init_from is not None:
        made_from["init_adapter"] = adapter_digest(config)
    return made_from


def adapter_digest(config: RunConfig) -> str | None:
    """A digest of the adapter that --init_from names; None for one that DePT's authors released."""
    weights = weights_file(find_adapter(config.init_from, config.results_dir))
    return file_digest(weights) if weights.suffix == ".safetensors" else None


def require_same_run(config: RunConfig, record: dict, *, timed: bool = False) -> None:
    """Raises UserError where a finished run is not the one that is asked for; it names what differs and the remedy.

    timed: the run's times are asked for, too.
    """
    if changes := differences(config, record, timed=timed):
        raise UserError(
            f"{record_path(config.results_dir, config.run_id)} is there, but {'; '.join(changes)}: "
            "--results_dir ANOTHER keeps both, --rerun moves the old one aside and runs again"
        )


def differences(config: RunConfig, record: dict, *, timed: bool = False) -> list[str]:
    """What of a finished run differs from what is asked, in words. What a record does not tell counts as the same."""
    found = [
        *changed_options(config, record["config"]),
        *changed_files(config, record.get("provenance", {})),
        *missing_results(config, record),
    ]
    if timed and (runs := record.get("provenance", {}).get("stacked", 1)) > 1:
        found.append(f"it was trained in a stack of {runs} runs, so its times are not its own")
    return found


def changed_options(config: RunConfig, recorded: dict) -> Iterator[str]:
    """Options that were recorded with another value.

    An option that the record lacks is younger than the record. Equal ids say that its value is today's default, and
    that does what was done before there was the option.
    """
    for name, value in config.flat().items():
        if name in COMPARED_AS_FILES or is_place(OPTIONS[name]) or name not in recorded:
            continue
        if recorded[name] != value:
            yield f"it has --{name} {recorded[name]}, not {value}"


def changed_files(config: RunConfig, provenance: dict) -> Iterator[str]:
    """The base model, the adapter it starts from, and the data, where they are not what they were."""
    recorded = provenance.get("base_model")
    if recorded is not None and recorded != base_identity(config.model):
        yield f"the files of its base model {config.model} were others"
    elif commit := provenance.get("model_revision"):
        cached = cached_commit(config.model, config.model_revision)
        if cached not in (None, commit):
            yield f"its base model {config.model} was of revision {commit}, not {cached}"
    recorded = provenance.get("init_adapter")
    with contextlib.suppress(UserError):  # an adapter that is gone cannot be compared
        if recorded is not None and recorded != adapter_digest(config):
            yield f"the adapter that it started from (--init_from {config.init_from}) was another"
    yield from changed_data(config, provenance)


def changed_data(config: RunConfig, provenance: dict) -> Iterator[str]:
    """The data, where they were others. Rows are read only where their files differ or are not recorded."""
    recorded = provenance.get("data_files")
    if "data_fingerprint" not in provenance:
        return
    try:
        files = data_files(task_of(config), config)
        if recorded is None and provenance.get("data_origin") not in (None, "local"):  # an older record
            recorded = dict.fromkeys(files, provenance["data_origin"])
        if recorded is not None and recorded.keys() == files.keys():
            changed = [split for split in files if not is_same_source(recorded[split], files[split])]
        else:
            changed = list(files)
        if not changed or summarise_data(config).fingerprint == provenance["data_fingerprint"]:
            return
    except UserError as error:  # no such data now
        print_status(f"{config.run_id}: its data cannot be compared: {error}")
        return
    yield f"its data were others ({', '.join(changed)} of task '{config.task}')"


def is_same_source(recorded: str, now: str) -> bool:
    """Whether two identities of a split's source are one, as far as can be told: a hub that does not answer names no
    commit.
    """
    return recorded == now or (now.startswith("hub:") and recorded.startswith(f"{now}@"))


def missing_results(config: RunConfig, record: dict) -> Iterator[str]:
    """Results that are asked for and that the record does not have, although they are no part of the run's id."""
    if config.compare_scoring and "scoring_agreement" not in record:
        yield "it was not scored both ways (--compare_scoring)"


def move_aside(config: RunConfig) -> Path:
    """Moves a finished run's record and folder to RESULTS_DIR/replaced. Returns the record's new path."""
    results_dir, run_id = config.results_dir, config.run_id
    with claim_run(results_dir, run_id), report_disk_errors(Path(results_dir) / "replaced"):
        replaced = Path(results_dir) / "replaced"
        replaced.mkdir(parents=True, exist_ok=True)
        number = next(n for n in itertools.count(1) if not (replaced / f"{run_id}.{n}.json").exists())
        if (folder := run_folder(results_dir, run_id)).exists():
            os.replace(folder, replaced / f"{run_id}.{number}")
        return record_path(results_dir, run_id).rename(replaced / f"{run_id}.{number}.json")


def accept(config: RunConfig, record: dict, *, rerun: bool = False, timed: bool = False) -> bool:
    """Whether a finished run is what is asked for. Where it is not, it is moved aside with `rerun`.

    Raises UserError, which names what differs, without `rerun`.
    """
    if not rerun:
        require_same_run(config, record, timed=timed)
        return True
    if not (changes := differences(config, record, timed=timed)):
        return True
    print_status(f"{config.run_id} runs again: {'; '.join(changes)}; the old record is {move_aside(config)}")
    return False
