# Sourced by up.sh: one real node (containerd, kubelet, kube-proxy) and the cluster's DNS.

need_node() {
  [ -n "$NETNS" ] || lacks "root (a real node mounts, makes cgroups and network devices)"
  [ "$NUMBER" = 0 ] || lacks "KUBE_NUMBER=0, the only cluster of a machine that may have a real node"
  need containerd
  need ctr containerd
  need runc
  need iptables
  need nft nftables
  need conntrack
  need busybox busybox-static
  need python3
  [ -x /usr/lib/cni/bridge ] || lacks "/usr/lib/cni/bridge (package containernetworking-plugins)"
}

node() {
  alive apiserver || die "a node needs a running control plane: up.sh control node"
  no_other_kubelet
  containerd_up
  images
  kubelet_up
  dns
}

# A kubelet tidies all of the cgroup tree "kubepods": two on one machine would end each other's pods.
no_other_kubelet() {
  alive kubelet || [ -z "$(find /sys/fs/cgroup{,/*}/kubepods -name cgroup.procs -exec cat {} + 2>/dev/null)" ] ||
    cannot "another kubelet's pods are running on this machine (below /sys/fs/cgroup)"
}

containerd_up() {
  local folder=$KUBE_DIR/cd
  mkdir -p "$folder/cni" "$folder/certs.d/$REGISTRY"
  render cni.json >"$folder/cni/10-bridge.conflist"
  render containerd.toml >"$folder/config.toml"
  echo "server = \"http://$REGISTRY\"" >"$folder/certs.d/$REGISTRY/hosts.toml"
  start containerd containerd --config "$folder/config.toml"
  await containerd 20 ctr version
}

# Images that no registry here can give: they come from files of this machine.
images() {
  local folder=$KUBE_DIR/images applet links=() image
  [ ! -e "$folder/done" ] || return 0
  mkdir -p "$folder"
  for applet in cat cp date dd echo env false grep head httpd id ip ls mkdir mv nc nslookup ps rm sed sh sleep stat tail test touch tr true wc wget; do
    links+=(--link "/bin/$applet=busybox")
  done
  mkimage() { python3 "$HERE/mkimage.py" "kube.local/$1:1" "$folder/$1.tar" "${@:2}"; }
  mkimage pause --user 65535:65535 --entrypoint /pause "$KUBE_BIN/pause:/pause"
  mkimage coredns --entrypoint /coredns "$KUBE_BIN/coredns:/coredns"
  mkimage busybox "${links[@]}" "$(command -v busybox):/bin/busybox"
  for image in pause coredns busybox; do ctr image import "$folder/$image.tar" >/dev/null; done
  touch "$folder/done"
}

kubelet_up() {
  # The kubelet sets these on the host, for good: down.sh puts them back.
  local saved=$KUBE_DIR/run/sysctl
  [ -e "$saved" ] || { sysctl vm.overcommit_memory kernel.panic kernel.panic_on_oops >"$saved.new" && mv "$saved.new" "$saved"; }
  # Without it, a pod that meets its own service on the same bridge gets its answer from the wrong address.
  [ -e /proc/sys/net/bridge ] || modprobe br_netfilter 2>/dev/null || cannot "the kernel has no br_netfilter"
  inside sysctl -qw net.bridge.bridge-nf-call-iptables=1
  printf 'nameserver 127.0.0.53\n' >"$KUBE_DIR/resolv.conf"
  render kubelet.yaml >"$KUBE_DIR/kubelet.yaml"
  start kubelet "$KUBE_BIN/kubebox" kubelet --config "$KUBE_DIR/kubelet.yaml" --kubeconfig "$KUBE_DIR/kubelet.conf" \
    --root-dir "$KUBE_DIR/kubelet" --cert-dir "$KUBE_DIR/pki" --hostname-override "$NODE" --node-ip "$NODE_IP"
  # In a network namespace of its own kube-proxy may not write the conntrack limits, which are the host's.
  start proxy "$KUBE_BIN/kubebox" kube-proxy --kubeconfig "$KUBE_DIR/proxy.conf" --hostname-override "$NODE" \
    --proxy-mode nftables --cluster-cidr "$POD_CIDR" --bind-address "$NODE_IP" --oom-score-adj 0 \
    --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0s --conntrack-tcp-timeout-close-wait 0s \
    --healthz-bind-address 127.0.0.1:10256 --metrics-bind-address 127.0.0.1:10249
  await kubelet 60 kubectl wait --for=condition=Ready "node/$NODE" --timeout=1s
}

dns() {
  render coredns.yaml | kubectl apply --filename - >/dev/null
  await kubelet 60 kubectl --namespace kube-system rollout status deployment/coredns --timeout=1s
}
