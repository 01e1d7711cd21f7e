#!/usr/bin/env bash
# T5-3B on six large tasks (Table 5)
# bash scripts/table5.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table5.yaml "$@"
