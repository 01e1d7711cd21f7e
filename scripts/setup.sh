# Sourced by the other scripts: goes to the checkout's root, makes .venv there and installs $requirements (requirements.txt), once.
# PYTHON=python3.12 bash scripts/quickstart.sh picks another interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
requirements=${requirements:-requirements.txt}
if [ ! -x .venv/bin/python ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        { echo "error: '$python' is not Python 3.11 or newer; name one: PYTHON=python3.11 bash $0" >&2; exit 2; }
    "$python" -m venv .venv
fi
if ! cat requirements.txt "$requirements" | cmp -s - ".venv/$requirements"; then
    echo "installing $requirements into .venv, once: some minutes" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cat requirements.txt "$requirements" > ".venv/$requirements"
fi
export PATH="$PWD/.venv/bin:$PATH" TOKENIZERS_PARALLELISM=false
