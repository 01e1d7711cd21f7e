#!/usr/bin/env bash
# The README's second table: PT and ADePT with SmolLM2-135M on RTE, MRPC and SST-2. Some 20 minutes on two CPU cores.
# bash scripts/first_results.sh [--data_dir DIR] [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
python -m adept sweep configs/first_results.yaml "$@"
python -m adept report configs/first_results.yaml "$@"
