#!/usr/bin/env bash
# Without the offsets, prompt only (Table 11)
# bash scripts/table11.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table11.yaml "$@"
