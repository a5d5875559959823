#!/usr/bin/env bash
# Makes the local base image from Debian packages alone, unless the cache has it, and prints its name.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name=localhost/enginewright-base:$(sha256sum "$HERE/rootfs.sh" | cut -c1-16)
if store inspect --type image "$name" >/dev/null 2>&1; then
  echo "$name"
  exit
fi

say "base: debootstrap (about 30 s)"
work=$(mktemp -d "$CACHE/base.XXXXXX")
trap 'rm -rf "$work"' EXIT
nice "$HERE/rootfs.sh" "$work/root" >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
# Former bases; one that an image still stands on stays until that image is rebuilt.
for former in $(store images --format '{{.Name}}:{{.Tag}}' | grep '^localhost/enginewright-base:' || true); do
  store rmi "$former" >/dev/null 2>&1 || true
done
container=$(store from scratch)
store add --quiet "$container" "$work/root" / >/dev/null
store config --cmd /bin/sh "$container"
store commit --quiet --rm "$container" "$name" >/dev/null
echo "$name"
