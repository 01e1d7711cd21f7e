#!/usr/bin/env bash
# How large are the offsets beside the embeddings? (Table 2)
# bash scripts/table2.sh [--dry_run] [--profile smoke|laptop] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/table2.yaml "$@"
