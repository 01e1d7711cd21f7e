#!/usr/bin/env bash
# GLUE and SuperGLUE with T5-base (Table 3)
# bash scripts/table3.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table3.yaml "$@"
