#!/usr/bin/env bash
# Makes the root folder of a small Debian: rootfs.sh FOLDER. Its text is the key under which the result is cached.
# DEBIAN_MIRROR: another mirror than debootstrap's own.
set -euo pipefail
root=${1:?usage: rootfs.sh FOLDER}
debootstrap --variant=minbase bookworm "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
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
