# Sourced by up.sh: one authority, four certificates, a token and a kubeconfig for each user.

pki() {
  local folder=$KUBE_DIR/pki
  [ ! -e "$folder/done" ] || return 0
  mkdir -p "$folder"
  (
    cd "$folder"
    umask 077
    key ca
    openssl req -x509 -new -key ca.key -subj /CN=enginewright-test-ca -days 3650 -out ca.crt
    certificate apiserver /CN=kube-apiserver serverAuth "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:$SERVICE_IP,IP:$NODE_IP"
    certificate kubelet-client /O=system:masters/CN=apiserver-kubelet-client clientAuth
    certificate front-proxy-client /CN=front-proxy-client clientAuth
    certificate kubelet "/CN=$NODE" serverAuth "DNS:$NODE,IP:$NODE_IP"
    key service-account
    openssl ec -in service-account.key -pubout -out service-account.pub 2>/dev/null
    : >tokens.csv
    user admin admin system:masters
    user kcm system:kube-controller-manager ""
    user scheduler system:kube-scheduler ""
    user proxy system:kube-proxy ""
    user kubelet "system:node:$NODE" system:nodes
    user kwok kwok system:masters
    touch "done"
  )
}

key() { openssl ecparam -genkey -name prime256v1 -noout -out "$1.key"; }

certificate() { # certificate NAME SUBJECT USAGE [ALTERNATIVE NAMES]
  key "$1"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out "$1.crt" \
    -extfile <(echo "extendedKeyUsage=$3"; [ -z "${4-}" ] || echo "subjectAltName=$4") 2>/dev/null
}

user() { # user FILE NAME GROUPS: writes FILE.conf, a kubeconfig
  local token
  token=$(openssl rand -hex 16)
  echo "$token,$2,$2,\"$3\"" >>tokens.csv
  cat >"$KUBE_DIR/$1.conf" <<JSON
{"apiVersion": "v1", "kind": "Config", "current-context": "enginewright-test",
 "clusters": [{"name": "enginewright-test", "cluster": {"server": "https://$NODE_IP:$API_PORT", "certificate-authority-data": "$(base64 -w0 ca.crt)"}}],
 "users": [{"name": "$1", "user": {"token": "$token"}}],
 "contexts": [{"name": "enginewright-test", "context": {"cluster": "enginewright-test", "user": "$1"}}]}
JSON
}
