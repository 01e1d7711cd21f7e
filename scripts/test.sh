#!/usr/bin/env bash
# Installs, checks style and floors, fetches the bundled model and data, runs the tests without a network.
# bash scripts/test.sh [pytest arguments]
requirements=requirements-dev.txt
source "$(dirname "$0")/setup.sh"
ruff format --check .
ruff check .
lint-imports
python -m adept fetch
HF_HUB_OFFLINE=1 python -m pytest "$@"
