#!/usr/bin/env bash
# MRQA and four other tasks with T5-base (Table 4)
# bash scripts/table4.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table4.yaml "$@"
