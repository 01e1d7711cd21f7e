#!/usr/bin/env bash
# T5-3B, exact match: the runs of Table 5 (Table 6)
# bash scripts/table6.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table6.yaml "$@"
