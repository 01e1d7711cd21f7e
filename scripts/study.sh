#!/usr/bin/env bash
# The study: every method with the same search and three seeds on movie_reviews, SST-2 and CoLA. Hours on two CPU cores; it goes on where it was.
# bash scripts/study.sh [--data_dir DIR] [--dry_run] [--launch local|ray|slurm] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/study.yaml "$@"
