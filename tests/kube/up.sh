#!/usr/bin/env bash
# Boots a real Kubernetes on this machine and prints the path of its kubeconfig.
#
#   up.sh [--until-unused] [control] [kwok] [node] [registry]
#
# Without parts: all that this user may run. Parts that run already are left alone and a server that died is
# started again, so calling it twice, or for more parts later, is fine. --until-unused: the last test session
# that used the cluster takes it down; otherwise it stays until down.sh.
# Exit status 3: this machine lacks something, which the message names.
. "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"
. "$HERE/lib/servers.sh"
. "$HERE/lib/network.sh"
. "$HERE/lib/pki.sh"
for part in control kwok node registry; do . "$HERE/parts/$part.sh"; done

missing=()
lacks() { missing+=("$1"); }
need() { command -v "$1" >/dev/null || lacks "$1 (package ${2-$1})"; } # need COMMAND [PACKAGE]

render() { # render TEMPLATE: config/TEMPLATE with its @NAMES@ filled in
  local name script=()
  for name in KUBE_DIR NODE_IP DNS_IP NODE_POD_CIDR REGISTRY; do script+=(-e "s|@$name@|${!name}|g"); done
  sed "${script[@]}" "$HERE/config/$1"
}

keep=yes
[ "${1-}" != --until-unused ] || { keep=no; shift; }
if [ $# = 0 ]; then
  set -- control kwok
  [ -z "$NETNS" ] || set -- "$@" node registry
fi

for part in "$@"; do
  declare -F "need_$part" >/dev/null || die "no such part: $part (control, kwok, node, registry)"
  "need_$part"
done
if [ ${#missing[@]} -gt 0 ]; then
  printf -v list '%s, ' "${missing[@]}"
  cannot "missing here: ${list%, }. Packages are installed by: make system-deps"
fi

KUBE_BIN=$("$HERE/build.sh")
unset_proxies
lock
if [ -d "$KUBE_DIR" ]; then
  if any_alive; then
    say "a cluster is running already, in $KUBE_DIR"
  else
    say "clearing what an earlier run left in $KUBE_DIR"
    "$HERE/down.sh" --locked
  fi
fi
mkdir -p "$KUBE_DIR/log" "$KUBE_DIR/run"
ln -sfn "$KUBE_BIN" "$KUBE_DIR/bin"
[ "$keep" = no ] || touch "$KUBE_DIR/keep"

network_up
pki
for part in "$@"; do
  begun=$(date +%s%N)
  "$part"
  say "$part: $((($(date +%s%N) - begun) / 1000000)) ms"
done
echo "$KUBECONFIG"
