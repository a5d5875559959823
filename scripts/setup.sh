#!/usr/bin/env bash
# Make the virtual environment given as $1 from requirements.lock. Safe to run again.
set -euo pipefail
venv=${1:?usage: setup.sh VENV}
cd "$(dirname "$0")/.."

python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3.11 python3.12 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))'; then
      python=$candidate
      break
    fi
  done
fi
if [ -z "$python" ]; then
  echo "setup: needs Python 3.11 or 3.12; on Debian and Ubuntu: apt-get install python3 python3-venv" >&2
  exit 1
fi

if [ ! -x "$venv/bin/python" ]; then
  if ! "$python" -m venv "$venv" 2>/dev/null; then
    rm -rf "$venv"
    echo "setup: $python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
  fi
fi
uv_version=0.13.8
if ! "$venv/bin/uv" --version 2>/dev/null | grep -qF "$uv_version"; then
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
fi
echo "setup: installing $(grep -cE '^[a-z0-9]' requirements.lock) packages into $venv (about 5 GB; the first time takes minutes)"
"$venv/bin/uv" pip sync --require-hashes --python "$venv/bin/python" requirements.lock
"$venv/bin/uv" pip install --quiet --no-deps --python "$venv/bin/python" --editable .
