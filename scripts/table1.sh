#!/usr/bin/env bash
# Does DePT need its offsets at their positions? (Table 1)
# bash scripts/table1.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table1.yaml "$@"
