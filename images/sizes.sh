#!/usr/bin/env bash
# Prints what a node pulls of each image (gzip, as registries mostly have layers) and what it takes unpacked: sizes.sh [control ...]
# Exit status 1: control, which every cluster pulls first and on each node of the control plane, is larger than its bar.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PULLED_BAR=250 # MB of 10^6 bytes, of `control`
[ $# -gt 0 ] || set -- control

exec 9>"$CACHE/lock"
flock 9
folder=$(mktemp -d "$CACHE/sizes.XXXXXX")
trap 'rm -rf "$folder"' EXIT
status=0
for image in "$@"; do
  name=localhost/enginewright-$image:dev
  store push --quiet --compression-format gzip "$name" "dir:$folder/$image" >&2
  pulled=$(jq '([.config.size, .layers[].size] | add) / 1e6 | ceil' "$folder/$image/manifest.json")
  unpacked=$(for layer in $(jq -r '.layers[].digest' "$folder/$image/manifest.json"); do
    gzip --decompress --stdout "$folder/$image/${layer#sha256:}" | wc --bytes
  done | awk '{bytes += $1} END {printf "%.0f", bytes / 1e6}')
  echo "$image: $pulled MB pulled, $unpacked MB on disk"
  if [ "$image" = control ] && [ "$pulled" -ge "$PULLED_BAR" ]; then
    say "control: $pulled MB are pulled, the bar is $PULLED_BAR MB; see what images/trim could take out"
    status=1
  fi
  rm -rf "${folder:?}/$image"
done
exit "$status"
