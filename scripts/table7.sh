#!/usr/bin/env bash
# Code generation on MBPP with CodeGen-350M and Llama3-8B (Table 7)
# bash scripts/table7.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table7.yaml "$@"
