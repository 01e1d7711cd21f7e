#!/usr/bin/env bash
# The network alone, without a prompt (Table 14)
# bash scripts/table14.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table14.yaml "$@"
