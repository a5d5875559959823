#!/usr/bin/env bash
# Make the virtual environment given as $1 from requirements.lock. Safe to run again.
set -euo pipefail
venv=${1:?usage: setup.sh VENV}
cd "$(dirname "$0")/.."

# What pip cannot bring: venv support and the shared libpython that Triton's python backend loads.
debian_packages() {
  command -v apt-get >/dev/null || return 1
  if [ "$(id -u)" -eq 0 ]; then
    echo "setup: installing $*"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  else
    echo "setup: missing; run: sudo apt-get install $*" >&2
    return 1
  fi
}

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
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import ensurepip' 2>/dev/null || debian_packages "python$version-venv"
if ! "$python" - <<'PY'
import ctypes.util, os, sys, sysconfig
name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
folders = [sysconfig.get_config_var("LIBDIR") or "", os.path.join(sys.base_prefix, "lib")]
found = any(os.path.exists(os.path.join(folder, name)) for folder in folders)
sys.exit(not (found or ctypes.util.find_library("python%d.%d" % sys.version_info[:2])))
PY
then
  debian_packages "libpython$version"
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
uv_version=$(sed -nE 's/^uv==([0-9.]+).*/\1/p' scripts/uv.txt)
if ! "$venv/bin/uv" --version 2>/dev/null | grep -qF "$uv_version"; then
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement scripts/uv.txt
fi
echo "setup: installing $(grep -cE '^[a-z0-9]' requirements.lock) packages into $venv (about 5 GB; the first time takes minutes)"
# Compiling the bytecode takes half a minute here; left to the first build, every process of it would wait for imports.
"$venv/bin/uv" pip sync --quiet --compile-bytecode --require-hashes --python "$venv/bin/python" requirements.lock
"$venv/bin/uv" pip install --quiet --no-deps --python "$venv/bin/python" --editable .
