#!/usr/bin/env bash
# The size of the bottleneck (Table 12)
# bash scripts/table12.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table12.yaml "$@"
