#!/usr/bin/env bash
# Installs, checks style and floors, fetches the bundled model and data, runs the tests without a network: two halves,
# a core each, the first one's output when both are done.
# bash scripts/test.sh [pytest arguments]
requirements=requirements-dev.txt
source "$(dirname "$0")/setup.sh"
ruff format --check .
ruff check .
lint-imports
python -m adept fetch
export HF_HUB_OFFLINE=1
output=$(mktemp)
set -m # a job of its own, which takes Ctrl-C as a program in front does: tests send it
python -m pytest tests/training tests/serving tests/methods tests/test_*.py "$@" > "$output" 2>&1 &
half=$!
trap 'kill "$half" 2>/dev/null || true; rm -f "$output"' EXIT
folders=()
for folder in tests/*/; do
    case $folder in tests/training/ | tests/serving/ | tests/methods/ | tests/__pycache__/) ;; *) folders+=("$folder") ;; esac
done
status=0
python -m pytest "${folders[@]}" "$@" || status=$?
wait "$half" || status=$?
cat "$output"
exit "$status"
