# Sourced by up.sh and down.sh: the cluster's own network namespace.
#
# A veth pair joins it to the host; it has no default route, so nothing in the cluster reaches the outside,
# and no bridge or firewall rule of the cluster is ever on the host. Taking it down is one delete.
# The host routes pod and service addresses into it, so tests reach both without entering it,
# and pods reach a server that a test runs on the host at $HOST_IP.

network_up() {
  [ -n "$NETNS" ] && [ ! -e "/run/netns/$NETNS" ] || return 0
  local range
  for range in "$SERVICE_CIDR" "$POD_CIDR"; do
    [ -z "$(ip route show root "$range")" ] || cannot "this machine already routes addresses in $range; another KUBE_NUMBER (1-9) uses others"
  done
  ip netns add "$NETNS"
  ip link add "$NETNS" type veth peer name uplink netns "$NETNS"
  ip addr add "$HOST_IP/30" dev "$NETNS"
  ip link set "$NETNS" up
  inside ip link set lo up
  inside ip addr add "$NODE_IP/30" dev uplink
  inside ip link set uplink up
  # Packets to a service address need some route before the firewall rewrites them.
  inside ip route add "$SERVICE_CIDR" dev uplink
  inside sysctl -qw net.ipv4.ip_forward=1
  ip route add "$POD_CIDR" via "$NODE_IP"
  ip route add "$SERVICE_CIDR" via "$NODE_IP"
}

network_down() {
  [ -n "$NETNS" ] && [ -e "/run/netns/$NETNS" ] || return 0
  ip link del "$NETNS" 2>/dev/null || true
  ip netns del "$NETNS"
}
