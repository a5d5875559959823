#!/usr/bin/env bash
# Writes what each image holds (CycloneDX JSON) and prints the files: sbom.sh FOLDER PYTHON [control serving builder]
# PYTHON: an interpreter that has cyclonedx-python-lib, such as that of `make setup`.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
folder=${1:?usage: sbom.sh FOLDER PYTHON [IMAGE...]} python=${2:?usage: sbom.sh FOLDER PYTHON [IMAGE...]}
shift 2
[ $# -gt 0 ] || set -- "${IMAGES[@]}"
mkdir -p "$folder"

exec 9>"$CACHE/lock"
flock 9
for image in "$@"; do
  name=enginewright-$image
  container=$(store from --pull-never "localhost/$name:dev")
  trap 'store rm "$container" >/dev/null' EXIT
  digest=$(store inspect --type image --format '{{.FromImageDigest}}' "localhost/$name:dev")
  "$python" "$HERE/sbom.py" --root "$(store mount "$container")" --name "$name" --version "$digest" >"$folder/$name.cdx.json.part"
  mv "$folder/$name.cdx.json.part" "$folder/$name.cdx.json"
  store umount "$container" >/dev/null
  store rm "$container" >/dev/null
  trap - EXIT
  say "$image: $(jq '.components | length' "$folder/$name.cdx.json") components"
  echo "$folder/$name.cdx.json"
done
