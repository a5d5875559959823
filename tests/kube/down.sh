#!/usr/bin/env bash
# Takes down what up.sh started and removes every trace of it.
#
#   down.sh [--keep-logs]
#
# The order lets the kubelet unmount and the network plugin clean up. Also clears what a killed run left.
. "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"
. "$HERE/lib/servers.sh"
. "$HERE/lib/network.sh"
shopt -s nullglob

[ "${1-}" = --locked ] || lock # up.sh calls this under its own lock
KUBE_BIN=$KUBE_DIR/bin
unset_proxies

end_pods() {
  alive kubelet && alive apiserver && alive containerd || return 0
  # Only the real node's: the pods of fake nodes may never go once the controllers are stopped.
  kubectl delete pods --all-namespaces --field-selector "spec.nodeName=$NODE" --grace-period=1 --wait=false >/dev/null 2>&1 || true
  # A pod that was told to end earlier, with the usual 30 s, is not hurried by that: kill what runs in it.
  local id
  for id in $(ctr task ls -q 2>/dev/null); do ctr task kill -s KILL "$id" >/dev/null 2>&1 || true; done
  for _ in $(seq 100); do
    [ -n "$(ctr task ls -q 2>/dev/null)" ] || break
    sleep 0.1
  done
}

end_containers() { # those the kubelet did not get to
  alive containerd || return 0
  local id
  for id in $(ctr task ls -q 2>/dev/null); do
    ctr task kill -s KILL "$id" >/dev/null 2>&1 || true
    ctr task rm -f "$id" >/dev/null 2>&1 || true
  done
  for id in $(ctr container ls -q 2>/dev/null); do ctr container rm "$id" >/dev/null 2>&1 || true; done
}

end_shims() { # with what they run, when containerd died before them
  local task tree process
  for task in "$KUBE_DIR"/cd/state/io.containerd.runtime.v2.task/k8s.io/*; do
    for tree in $(find /sys/fs/cgroup{,/*}/kubepods -type d -name "${task##*/}" 2>/dev/null); do
      xargs -r kill -KILL <"$tree/cgroup.procs" 2>/dev/null || true
    done
  done
  # A shim of ours carries our socket's path in its arguments.
  for process in /proc/[0-9]*; do
    if tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -q "^[^ ]*containerd-shim-runc-v2 .*-address $KUBE_DIR/cd/containerd.sock"; then
      kill -KILL "${process#/proc/}" 2>/dev/null || true
    fi
  done
}

unmount() {
  for _ in 1 2 3; do # mounts below mounts
    awk '{print $2}' /proc/mounts | grep -F "$KUBE_DIR/" | sort -r | xargs -r -n1 umount --lazy 2>/dev/null || true
  done
}

restore_host() { # what the kubelet changes at fixed places outside its folder
  local link tree socket
  if [ -e "$KUBE_DIR/run/sysctl" ]; then sysctl --quiet --load "$KUBE_DIR/run/sysctl"; fi
  for link in /var/log/containers/*.log; do
    case $(readlink "$link") in "$KUBE_DIR"/*) rm -f "$link" ;; esac
  done
  for tree in /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/kubepods; do
    find "$tree" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
  # What containerd, the network plugins and the kubelet make whatever their settings say; killed ones leave files.
  rm -f /var/lib/cni/results/enginewright-*
  for socket in /run/containerd/s/* /var/lib/kubelet/device-plugins/kubelet.sock; do
    grep -qF "$socket" /proc/net/unix || rm -f "$socket"
  done
  rmdir /var/log/containers /var/lib/kubelet{/device-plugins,} /var/lib/cni{/results,} /run/containerd{/s,} 2>/dev/null || true
}

if [ -d "$KUBE_DIR" ]; then
  stop scheduler
  stop kcm
  had_node=$([ ! -e "$KUBE_DIR/run/containerd.pid" ] || echo yes)
  end_pods
  for server in kwok kubelet proxy; do stop "$server"; done
  end_containers
  for server in containerd registry apiserver etcd; do stop "$server"; done
  if [ -n "$had_node" ]; then
    end_shims
    unmount
    restore_host
  fi
fi
network_down
if [ "${1-}" = --keep-logs ]; then
  find "$KUBE_DIR" -mindepth 1 -maxdepth 1 ! -name log -exec rm -rf --one-file-system {} + 2>/dev/null || true
else
  rm -rf --one-file-system "$KUBE_DIR"
fi
