#!/usr/bin/env bash
# Makes the local base image from Debian packages alone, unless the cache has it, and prints its name.
#   base.sh     needs root, debootstrap, buildah
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suite=bookworm
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
key=$({ cat "${BASH_SOURCE[0]}"; echo "$suite"; } | sha256sum | cut -c1-16)
name=localhost/enginewright-base:$key
if store inspect --type image "$name" >/dev/null 2>&1; then
  echo "$name"
  exit
fi

say "base: debootstrap $suite (about 30 s)"
work=$(mktemp -d "$CACHE/base.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
nice debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$work/log" || { tail -n 20 "$work/log" >&2; exit 1; }
# What containers never read: caches, manuals, translations. Copyright files stay.
find "$root/usr/share/doc" -depth -type f ! -name copyright -delete
rm -rf "$root"/usr/share/{man,info,locale,lintian,bug}/* "$root"/var/cache/{apt,debconf}/* "$root"/var/lib/apt/lists/* \
  "$root"/var/log/{apt,*.log} "$root"/dev/*
mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
printf '%s\n' 'path-exclude=/usr/share/doc/*' 'path-include=/usr/share/doc/*/copyright' \
  'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/locale/*' 'path-exclude=/usr/share/info/*' \
  >"$root/etc/dpkg/dpkg.cfg.d/slim"
# The builder's resolver settings come with each build step.
: >"$root/etc/resolv.conf"
container=$(store from scratch)
store add --quiet "$container" "$root" / >/dev/null
store config --cmd /bin/sh "$container"
store commit --quiet --rm "$container" "$name" >/dev/null
echo "$name"
