#!/usr/bin/env bash
# Prompt and embedding matrix instead of prompt and network (Table 10)
# bash scripts/table10.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table10.yaml "$@"
