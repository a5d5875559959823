#!/usr/bin/env bash
# Builds a real S3 server (versitygw, Apache-2.0) from Go modules, once, and prints the program's path.
#
# The folder is named after what decides its content and appears by one rename: a killed build leaves nothing that a
# later one would take for whole. Exit code 3: this machine lacks something; the reason is on stderr.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/go"

say() { printf 's3 build: %s\n' "$*" >&2; }

PATH=$PATH:/usr/local/go/bin
command -v go >/dev/null || { say "Go is missing. Install Go 1.26 or newer (https://go.dev/doc/install)."; exit 3; }
export GOTOOLCHAIN=${GOTOOLCHAIN:-local} CGO_ENABLED=0 GOWORK=off GOFLAGS="-mod=readonly -trimpath -buildvcs=false"
release=$(go env GOVERSION)
[ "$(printf 'go1.26\n%s\n' "$release" | sort -V | head -n1)" = go1.26 ] || { say "Go 1.26 or newer is wanted, this is $release."; exit 3; }

cache=${XDG_CACHE_HOME:-$HOME/.cache}/enginewright/s3
folder=$cache/$(cat go.mod go.sum ../build.sh <(go version) | sha256sum | cut -c1-16)
mkdir -p "$cache"

# One build at a time; whoever waited finds the other's result.
exec 9>"$cache/lock"
flock 9
if [ ! -d "$folder" ]; then
  partial=$cache/partial
  rm -rf "$partial"
  mkdir -p "$partial"
  trap 'rm -rf "$partial"' EXIT
  say "compiling versitygw (a minute or two, once)"
  nice -n 15 go build -p "$(nproc)" -ldflags "-s -w" -o "$partial/versitygw" github.com/versity/versitygw/cmd/versitygw >&2
  mv "$partial" "$folder"
fi
echo "$folder/versitygw"
