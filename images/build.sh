#!/usr/bin/env bash
# Builds the images named (control serving builder; all without arguments) and prints a name for each.
# Layers are cached by content: an unchanged tree builds nothing, a change of our code only the last layer.
# Exit status 3: this machine lacks something, which the message names.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ $# -gt 0 ] || set -- "${IMAGES[@]}"

id_of() { store inspect --type image --format '{{.FromImageID}}' "$1" 2>/dev/null || true; }

exec 9>"$CACHE/lock"
flock 9
store rm --all >/dev/null 2>&1 || true # what an interrupted build left
base=${BASE_IMAGE:-$("$HERE/base.sh")}
options=(--quiet --layers --pull-never --format oci --file "$HERE/Dockerfile" --ignorefile "$HERE/Dockerfile.dockerignore" --build-arg "BASE_IMAGE=$base"
  --build-arg "VERSION=$(sed -nE 's/^version = "(.*)"/\1/p' "$ROOT/pyproject.toml")"
  --build-arg "BUILDER_GROUPS=${BUILDER_GROUPS-testdata}" --build-arg "TOOLCHAINS=${TOOLCHAINS-}")
# The index settings of this machine, where it has any.
for secret in "ca-bundle:${SSL_CERT_FILE-}" "uv.toml:${UV_CONFIG_FILE:-$HOME/.config/uv/uv.toml}" \
  "pip.conf:${PIP_CONFIG_FILE:-$HOME/.config/pip/pip.conf}"; do
  [ ! -s "${secret#*:}" ] || options+=(--secret "id=${secret%%:*},src=${secret#*:}")
done
# uv's cache of this machine: what `make setup` downloaded is not downloaded again.
uv_cache=${UV_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/uv}
mkdir -p "$uv_cache"
options+=(--volume "$uv_cache:/var/cache/host-uv" --build-arg UV_CACHE=/var/cache/host-uv)

for image in "$@"; do
  begun=$SECONDS
  name=localhost/enginewright-$image:dev
  former=$(id_of "$name")
  store build "${options[@]}" --target "$image" --tag "$name" "$ROOT" >&2
  present=$(id_of "$name")
  # With it go those of its layers that nothing else uses.
  [ -z "$former" ] || [ "$former" = "$present" ] || store rmi "$former" >/dev/null 2>&1 || true
  say "$image: $(store images --json | jq -r --arg id "${present:0:12}" '.[] | select(.id == $id).size') on disk, $((SECONDS - begun)) s"
  echo "$name"
done
# Cached stages have no names; when many of them are of former trees, all go and are made again within half a minute.
[ "$(store images --quiet --filter dangling=true | wc -l)" -lt 12 ] || store rmi --prune --force >/dev/null 2>&1 || true
