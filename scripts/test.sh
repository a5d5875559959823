#!/usr/bin/env bash
# Run every tier of tests that this machine can, one after the other, and end with one line of totals.
# Skips are printed with their reasons; a tier that cannot run says why.
# Many tests race real processes against deadlines. Where at most 5 of a tier fail they are run once more, alone: what
# passes then is no failure, and is named at the end as unsteady so that it gets mended.
set -uo pipefail
venv=${1:?usage: test.sh VENV}
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=2 TOKENIZERS_PARALLELISM=false
passed=0 failed=0 skipped=0 status=0 unsteady=()
# What the tests write lies in a folder of this run's own, emptied after each tier: builds write gigabytes.
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/ew.XXXXXX")
export TMPDIR
log=$TMPDIR/log
empty() { # what a killed cluster left mounted is not ours to remove
  grep -q " $TMPDIR/" /proc/mounts || find "$TMPDIR" -mindepth 1 "$@" -delete
}
trap 'empty && rmdir "$TMPDIR"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
needed=12 # GiB: the builder's tier writes most
free=$(df --output=avail -BG "$TMPDIR" | tail -n 1 | tr -dc 0-9)
if [ "$free" -lt "$needed" ]; then
  echo "make test: $TMPDIR has $free GiB free, the tests need $needed; free some, or name another disk with TMPDIR" >&2
  exit 1
fi

count() { # word: how many of these the last run of pytest ended with
  tail -n 3 "$log" | grep -E '(passed|failed|error|skipped)' | tail -n 1 | grep -oE "[0-9]+ $1" | grep -oE '[0-9]+' || echo 0
}

tier() { # name, pytest arguments...
  local name=$1 started=$SECONDS code broken suspects
  shift
  printf '\n── %s ──\n' "$name"
  "$venv/bin/pytest" --basetemp "$TMPDIR/$name" --durations 8 --durations-min 10 "$@" 2>&1 | tee "$log"
  code=${PIPESTATUS[0]}
  broken=$(($(count failed) + $(count error)))
  passed=$((passed + $(count passed))) skipped=$((skipped + $(count skipped)))
  if [ "$code" -eq 1 ] && [ "$broken" -ge 1 ] && [ "$broken" -le 5 ]; then
    mapfile -t suspects < <(sed -nE 's/^(FAILED|ERROR) (tests\/.*)/\2/p' "$log" | sed 's/ - .*//')
    printf '\n%s: once more, alone: %s\n' "$name" "${suspects[*]}"
    "$venv/bin/pytest" --basetemp "$TMPDIR/$name" --last-failed --last-failed-no-failures none "$@" -n 0 2>&1 | tee "$log"
    code=${PIPESTATUS[0]} broken=$(($(count failed) + $(count error)))
    passed=$((passed + $(count passed)))
    [ "$code" -ne 0 ] || unsteady+=("${suspects[@]}")
  fi
  # 5: no tests were collected, which for a whole tier is a failure of its own.
  [ "$code" -eq 0 ] || status=1
  failed=$((failed + broken))
  printf '%s: %s s, %s of files\n' "$name" "$((SECONDS - started))" "$(du -sh "$TMPDIR" | cut -f 1)"
  empty ! -path "$log"
}

tier unit tests/unit -q -n 2
for folder in tests/*/; do
  folder=${folder%/}
  case ${folder##*/} in unit | objects | kube | __pycache__) continue ;; esac
  [ -n "$(find "$folder" -name 'test_*.py' -print -quit)" ] || continue
  case ${folder##*/} in
    e2e) tier e2e "$folder" -q -s ;; # it prints how long each step took
    # Mostly starts of processes and waiting. The others measure, or share one machine's state.
    builder | scenarios) OMP_WAIT_POLICY=PASSIVE tier "${folder##*/}" "$folder" -q -n 2 --dist loadfile ;;
    *) tier "${folder##*/}" "$folder" -q ;;
  esac
done
printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "${#unsteady[@]}" -eq 0 ] || printf 'unsteady, passed at the second try: %s\n' "${unsteady[*]}"
exit "$status"
