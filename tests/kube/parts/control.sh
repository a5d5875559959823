# Sourced by up.sh: etcd, API server, controller-manager, scheduler.

need_control() {
  local program
  for program in openssl setsid flock; do need "$program"; done
  [ -z "$NETNS" ] || { need ip iproute2; need nsenter util-linux; need sysctl procps; unshare --mount --net true 2>/dev/null || lacks "the right to make network namespaces (root with CAP_SYS_ADMIN and CAP_NET_ADMIN)"; }
}

control() {
  local pki=$KUBE_DIR/pki box=$KUBE_BIN/kubebox etcd=http://127.0.0.1:$ETCD_PORT peer=http://127.0.0.1:$ETCD_PEER_PORT
  start etcd "$box" etcd --data-dir "$KUBE_DIR/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "$etcd" --advertise-client-urls "$etcd" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer"
  start apiserver "$box" kube-apiserver --etcd-servers "$etcd" --secure-port "$API_PORT" \
    --bind-address "$([ -n "$NETNS" ] && echo 0.0.0.0 || echo 127.0.0.1)" --advertise-address "$NODE_IP" \
    --service-cluster-ip-range "$SERVICE_CIDR" --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$pki/service-account.pub" --service-account-signing-key-file "$pki/service-account.key" \
    --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" --client-ca-file "$pki/ca.crt" \
    --token-auth-file "$pki/tokens.csv" --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --kubelet-client-certificate "$pki/kubelet-client.crt" --kubelet-client-key "$pki/kubelet-client.key" \
    --kubelet-certificate-authority "$pki/ca.crt" --kubelet-preferred-address-types InternalIP --allow-privileged=true \
    --requestheader-client-ca-file "$pki/ca.crt" --requestheader-allowed-names front-proxy-client \
    --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
    --requestheader-extra-headers-prefix X-Remote-Extra- --enable-aggregator-routing=true \
    --proxy-client-cert-file "$pki/front-proxy-client.crt" --proxy-client-key-file "$pki/front-proxy-client.key" \
    --audit-policy-file "$HERE/config/audit.yaml" --audit-log-path "$KUBE_DIR/log/audit.log"
  # The controller-manager exits when the built-in roles are not there yet, so it starts after /readyz.
  await apiserver 60 kubectl get --raw /readyz
  # The default of 20 requests per second makes 1,000 pods take 49 s instead of 10.
  start kcm "$box" kube-controller-manager --kubeconfig "$KUBE_DIR/kcm.conf" --bind-address 127.0.0.1 --secure-port "$KCM_PORT" \
    --authentication-kubeconfig "$KUBE_DIR/kcm.conf" --authorization-kubeconfig "$KUBE_DIR/kcm.conf" \
    --service-account-private-key-file "$pki/service-account.key" --root-ca-file "$pki/ca.crt" --use-service-account-credentials=true \
    --cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" --allocate-node-cidrs=false \
    --leader-elect=false --kube-api-qps 500 --kube-api-burst 1000 --flex-volume-plugin-dir "$KUBE_DIR/flex"
  start scheduler "$box" kube-scheduler --kubeconfig "$KUBE_DIR/scheduler.conf" --bind-address 127.0.0.1 --secure-port "$SCHEDULER_PORT" \
    --authentication-kubeconfig "$KUBE_DIR/scheduler.conf" --authorization-kubeconfig "$KUBE_DIR/scheduler.conf" \
    --leader-elect=false --kube-api-qps 500 --kube-api-burst 1000
  await kcm 30 kubectl --namespace default get serviceaccount default
}
