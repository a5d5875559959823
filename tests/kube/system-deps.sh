#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that the tests need. Does nothing, at once, when all are there.
#
# Go (1.26 or newer) is not among them: distributions carry older ones. See https://go.dev/doc/install.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

say() { printf 'system-deps: %s\n' "$*" >&2; }

# package [a command or file that makes it unnecessary: it may have come from elsewhere]
wanted="
  openssl                    openssl
  curl                       curl
  jq                         jq
  iproute2                   ip
  procps                     sysctl
  kmod                       modprobe
  util-linux                 nsenter
  iptables                   iptables
  nftables                   nft
  conntrack                  conntrack
  ethtool                    ethtool
  containerd                 containerd
  runc                       runc
  containernetworking-plugins /usr/lib/cni/bridge
  busybox-static
  docker-registry            docker-registry
  buildah                    buildah
  debootstrap                debootstrap
  skopeo                     skopeo
  libpython3.11
  prometheus                 promtool
"

present() { # present PACKAGE [COMMAND OR FILE]
  [ -n "${2-}" ] && command -v "$2" >/dev/null && return
  dpkg-query --show --showformat='${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii'
}

if ! command -v dpkg-query >/dev/null; then
  say "this is not Debian or Ubuntu: install the equivalents of these by hand:"
  awk 'NF {print "  " $1}' <<<"$wanted" >&2
  exit 1
fi
missing=()
while read -r package proof; do
  [ -z "$package" ] || present "$package" "$proof" || missing+=("$package")
done <<<"$wanted"
if [ ${#missing[@]} -eq 0 ]; then
  say "everything is installed"
  exit
fi

root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { say "run this as root (there is no sudo); missing: ${missing[*]}"; exit 1; }
  root=(sudo)
fi
say "installing ${missing[*]}"
# RUNLEVEL=1: install the programs, start no services (the tests start their own, with their own settings).
"${root[@]}" apt-get update -qq
"${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
  apt-get install --yes --quiet --no-install-recommends "${missing[@]}" >&2
