# Sourced by up.sh: kwok plays every node labelled kwok=yes, so pods there become Ready or Complete at once.

need_kwok() { :; }

kwok() {
  alive apiserver || die "kwok needs a running control plane: up.sh control kwok"
  start kwok "$KUBE_BIN/kwok" --kubeconfig "$KUBE_DIR/kwok.conf" --config "$KUBE_BIN/kwok-stages.yaml" \
    --manage-nodes-with-label-selector kwok=yes --cidr "$KWOK_POD_CIDR" --node-ip "$NODE_IP" --node-lease-duration-seconds 40
}
