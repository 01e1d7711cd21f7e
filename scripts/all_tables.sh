#!/usr/bin/env bash
# All 15 tables, then results/README.md and the page results/index.html. A table that fails does not stop the others.
# bash scripts/all_tables.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep --all "$@"
