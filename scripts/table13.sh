#!/usr/bin/env bash
# The length of the prompt (Table 13)
# bash scripts/table13.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table13.yaml "$@"
