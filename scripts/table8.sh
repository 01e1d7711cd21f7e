#!/usr/bin/env bash
# Longer prompts: score and speed at 153,600 parameters (Table 8)
# bash scripts/table8.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table8.yaml "$@"
