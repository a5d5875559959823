#!/usr/bin/env bash
# Pushes images to a registry over plain HTTP and prints a reference by digest for each.
#
#   push.sh REGISTRY [--storage FOLDER] [control serving builder]
#
# --storage: where a registry on this machine keeps its files. What was pushed once is linked there beforehand from the
# cache, so that a registry which begins empty with every test cluster is given gigabytes in no time.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
registry=${1:?usage: push.sh REGISTRY [--storage FOLDER] [IMAGE...]}
shift
storage=
[ "${1-}" != --storage ] || { storage=$2; shift 2; }
[ $# -gt 0 ] || set -- "${IMAGES[@]}"
tree=docker/registry/v2
kept=$CACHE/registry

# Blobs never change, so they can be hard links; the small files around them can change and are copied.
seed() { # seed FROM TO
  [ -d "$1/$tree" ] || return 0
  mkdir -p "$2/$tree/blobs" "$2/$tree/repositories"
  cp --archive --link --no-clobber "$1/$tree/blobs/." "$2/$tree/blobs/" 2>/dev/null || return 0 # another file system
  cp --archive --no-clobber "$1/$tree/repositories/." "$2/$tree/repositories/"
}

blob() { echo "blobs/sha256/${1:7:2}/${1:7}/data"; }

keep() { # keep REPOSITORY@DIGEST...: links what these consist of into a fresh cache, which replaces the old one
  local fresh reference repository digest part
  fresh=$(mktemp -d "$CACHE/registry.XXXXXX")
  for reference in "$@"; do
    repository=${reference%@*} digest=${reference#*@}
    for part in "$digest" $(jq -r '.config.digest, .layers[].digest' "$storage/$tree/$(blob "$digest")"); do
      mkdir -p "$fresh/$tree/$(dirname "$(blob "$part")")" "$fresh/$tree/repositories/$repository/_layers/sha256/${part:7}"
      ln -f "$storage/$tree/$(blob "$part")" "$fresh/$tree/$(blob "$part")" || { rm -rf "$fresh"; return 0; }
      [ "$part" = "$digest" ] || printf %s "$part" >"$fresh/$tree/repositories/$repository/_layers/sha256/${part:7}/link"
    done
  done
  rm -rf "$kept"
  mv "$fresh" "$kept"
}

exec 9>"$CACHE/lock"
flock 9
[ -z "$storage" ] || seed "$kept" "$storage"
pushed=()
for image in "$@"; do
  begun=$SECONDS
  repository=enginewright-$image
  # zstd: a third of gzip's time to unpack, and less to pack.
  store push --quiet --tls-verify=false --compression-format zstd --digestfile "$CACHE/run/digest" \
    "localhost/$repository:dev" "docker://$registry/$repository:dev" >&2
  pushed+=("$repository@$(cat "$CACHE/run/digest")")
  say "$image: pushed in $((SECONDS - begun)) s"
done
[ -z "$storage" ] || [ $# -lt ${#IMAGES[@]} ] || keep "${pushed[@]}"
printf "$registry/%s\n" "${pushed[@]}"
