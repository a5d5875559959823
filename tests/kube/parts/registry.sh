# Sourced by up.sh: an image registry, on 127.0.0.1 of the cluster's network namespace.

need_registry() {
  [ -n "$NETNS" ] || lacks "root (the registry lives in the cluster's network namespace)"
  need docker-registry
  need curl
}

registry() {
  mkdir -p "$KUBE_DIR/registry"
  render registry.yaml >"$KUBE_DIR/registry.yaml"
  start registry docker-registry serve "$KUBE_DIR/registry.yaml"
  await registry 20 inside curl --silent --fail "http://$REGISTRY/v2/"
}
