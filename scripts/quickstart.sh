#!/usr/bin/env bash
# From a fresh clone to trained PT, DePT and ADePT on a real model and real data, offline but for the package index.
# bash scripts/quickstart.sh [--FIELD VALUE ...]
source "$(dirname "$0")/setup.sh"
# bf16 halves the time on CPUs that compute it; the others would emulate it.
precision=()
if ! command -v nvidia-smi >/dev/null && ! grep -qE 'avx512_bf16|amx_bf16|bf16' /proc/cpuinfo 2>/dev/null; then
    precision=(--precision fp32)
fi
arguments=(configs/quickstart.yaml --results_dir results/quickstart "${precision[@]}" "$@")
python -m adept fetch
python -m adept sweep "${arguments[@]}"
python -m adept report "${arguments[@]}"
