#!/usr/bin/env bash
# One short run of every task with SmolLM2-135M. Some 40 minutes on two CPU cores.
# bash scripts/every_task.sh [--data_dir DIR] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/every_task.yaml "$@"
python -m adept report configs/every_task.yaml "$@"
