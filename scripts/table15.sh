#!/usr/bin/env bash
# Few-shot with transfer from five source tasks (Table 15)
# bash scripts/table15.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table15.yaml "$@"
