#!/usr/bin/env bash
# Run every tier of tests that this machine can, one after the other, and end with one line of totals.
# Skips are printed with their reasons; a tier that cannot run says why.
set -uo pipefail
venv=${1:?usage: test.sh VENV}
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=2 TOKENIZERS_PARALLELISM=false
passed=0 failed=0 skipped=0 status=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

tier() { # name, pytest arguments...
  local name=$1 started=$SECONDS code
  shift
  printf '\n── %s ──\n' "$name"
  "$venv/bin/pytest" "$@" 2>&1 | tee "$log"
  code=${PIPESTATUS[0]}
  # 5: no tests were collected, which for a whole tier is a failure of its own.
  [ "$code" -eq 0 ] || status=1
  local totals
  totals=$(tail -n 3 "$log" | grep -E '(passed|failed|error|skipped)' | tail -n 1)
  count() { printf '%s' "$totals" | grep -oE "[0-9]+ $1" | grep -oE '[0-9]+' || echo 0; }
  passed=$((passed + $(count passed))) skipped=$((skipped + $(count skipped)))
  failed=$((failed + $(count failed) + $(count error)))
  printf '%s: %s s\n' "$name" "$((SECONDS - started))"
}

tier unit tests/unit -q -n 2
for folder in tests/*/; do
  folder=${folder%/}
  case ${folder##*/} in unit | objects | kube | __pycache__) continue ;; esac
  [ -n "$(find "$folder" -name 'test_*.py' -print -quit)" ] || continue
  case ${folder##*/} in
    e2e) tier e2e "$folder" -q -s ;; # it prints how long each step took
    *) tier "${folder##*/}" "$folder" -q ;;
  esac
done
printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
exit "$status"
