#!/usr/bin/env bash
# Training time (Table 9)
# bash scripts/table9.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table9.yaml "$@"
