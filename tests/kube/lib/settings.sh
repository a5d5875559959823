# Sourced by up.sh and down.sh. One cluster is one number (KUBE_NUMBER, 0-9): its folder, network namespace
# and addresses all follow from it, so two clusters never meet. Number 0 is the one everybody shares.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf 'cluster: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
cannot() { say "$*"; exit 3; } # this machine lacks something: the test fixtures skip on 3 and fail on the rest

NUMBER=${KUBE_NUMBER:-0}
[[ $NUMBER =~ ^[0-9]$ ]] || die "KUBE_NUMBER is '$NUMBER', not a digit"
export PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin

# Root: state on a real disk (images are large), in a network namespace of its own.
# Others: control plane and kwok only, on plain 127.0.0.1.
# Unix socket paths end at 108 characters, so the folder is short.
if [ "$(id -u)" = 0 ]; then
  KUBE_HOME=${KUBE_HOME:-/var/lib/enginewright-kube}
  NETNS=ewkube$NUMBER
  HOST_IP=198.51.100.$((4 * NUMBER + 1))
  NODE_IP=198.51.100.$((4 * NUMBER + 2))
else
  KUBE_HOME=${KUBE_HOME:-/tmp/enginewright-kube-$(id -u)}
  NETNS=""
  HOST_IP=127.0.0.1
  NODE_IP=127.0.0.1
fi
[ "${#KUBE_HOME}" -le 48 ] || die "KUBE_HOME is too long for the unix sockets below it: $KUBE_HOME"
KUBE_DIR=$KUBE_HOME/$NUMBER

API_PORT=$((6443 + 10 * NUMBER))
ETCD_PORT=$((2379 + 10 * NUMBER))
ETCD_PEER_PORT=$((2380 + 10 * NUMBER))
KCM_PORT=$((10257 + 10 * NUMBER))
SCHEDULER_PORT=$((10259 + 10 * NUMBER))
REGISTRY=127.0.0.1:5000 # inside the network namespace only

NODE=node-0
SERVICE_CIDR=10.21$NUMBER.0.0/16
SERVICE_IP=10.21$NUMBER.0.1
DNS_IP=10.21$NUMBER.0.10
POD_CIDR=10.22$NUMBER.0.0/16
NODE_POD_CIDR=10.22$NUMBER.0.0/24
KWOK_POD_CIDR=10.23$NUMBER.0.0/16

export KUBECONFIG=$KUBE_DIR/admin.conf
export KUBECACHEDIR=$KUBE_DIR/cache
# Nothing here speaks to the outside: a proxy would only swallow the cluster's own addresses.
unset_proxies() { unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY; }

# 'ip netns exec' would remount /sys and hide the cgroup v1 mounts below it; nsenter does not.
inside() { if [ -n "$NETNS" ]; then nsenter --net="/run/netns/$NETNS" "$@"; else "$@"; fi; }
kubectl() { "$KUBE_BIN/kubectl" "$@"; }
ctr() { command ctr --address "$KUBE_DIR/cd/containerd.sock" --namespace k8s.io "$@"; }

# One up or down of a cluster at a time. The lock lies beside the folder, which comes and goes.
lock() {
  mkdir -p "$KUBE_HOME"
  chmod 700 "$KUBE_HOME"
  exec 8>"$KUBE_HOME/$NUMBER.lock"
  flock -n 8 || { say "another up.sh or down.sh is at work: waiting for it"; flock 8; }
}
