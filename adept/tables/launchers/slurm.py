"""A sweep as a Slurm array."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from adept.base.errors import UserError
from adept.base.paths import ROOT

SCRIPT = """\
#!/usr/bin/env bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
{options}# Every element of the array goes through the whole table and takes the runs that no other element has.
# Two minutes before its time is up, its run saves a checkpoint, and the element is queued again.
{setup}cd {folder}
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}
trap 'kill -USR1 $!; wait $!; scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"' USR1
{command} &
wait $!
"""


def slurm_script(name: str, words: list[str], workers: int, options: str, logs: Path, setup: Path | None = None) -> str:
    """The batch script of an array of `workers` elements, each of which runs the command `words`.

    options: sbatch's own. logs: the folder of what the elements print. setup: a file that the script reads first
    (`module load`, `conda activate`); the command begins with its $ADEPT_PREFIX, such as "apptainer exec IMAGE".
    """
    return SCRIPT.format(
        name=shlex.quote(f"adept-{name}"),
        last=workers - 1,
        log=shlex.quote(str(logs / "slurm-%A_%a.txt")),
        options=f"#SBATCH {' '.join(options.split())}\n" if options else "",
        setup=f". {shlex.quote(str(setup.resolve()))}\n" if setup is not None else "",
        folder=shlex.quote(os.getcwd()),
        root=shlex.quote(str(ROOT)),
        command=("${ADEPT_PREFIX:-} " if setup is not None else "") + shlex.join(words),
    )


def submit_to_slurm(
    name: str, arguments: list[str], workers: int, options: str, folder: Path, setup: Path | None = None
) -> str:
    """Writes the batch script into `folder` and submits it. Returns sbatch's message.

    arguments: of the sweep that each element carries out. Raises UserError where there is no sbatch or it refuses,
    and where `setup` (slurm_script()) is no file.
    """
    if setup is not None and not setup.is_file():
        raise UserError(f"--slurm_setup {setup} is not a file; it should hold what the shell needs, as `module load`")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / f"{name}.sbatch"
    words = [sys.executable, "-m", "adept", "sweep", *arguments, "--launch", "here"]
    script.write_text(slurm_script(name, words, workers, options, folder, setup), encoding="utf-8")
    if shutil.which("sbatch") is None:
        raise UserError(f"--launch slurm needs sbatch, which is not here; the script is {script}")
    done = subprocess.run(["sbatch", str(script)], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"sbatch refused {script}: {' '.join(done.stderr.split())[:200]}")
    return done.stdout.strip()
