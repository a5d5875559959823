# Sourced by the scripts beside it: where images are kept, and buildah with its storage there.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/enginewright/images
IMAGES=(control serving builder)

say() { printf 'images: %s\n' "$*" >&2; }
cannot() { say "$*"; exit 3; } # the machine lacks something: the tests skip with this sentence

[ "$(id -u)" = 0 ] || cannot "building images here needs root; elsewhere use: docker build -f images/Dockerfile --target control ."
for tool in buildah:buildah debootstrap:debootstrap; do
  PATH=$PATH:/usr/sbin command -v "${tool%%:*}" >/dev/null || cannot "missing here: ${tool%%:*}. Packages are installed by: make system-deps"
done
PATH=$PATH:/usr/sbin

mkdir -p "$CACHE/storage" "$CACHE/run"
cat >"$CACHE/storage.conf" <<EOF
[storage]
driver = "overlay"
graphroot = "$CACHE/storage"
runroot = "$CACHE/run"
EOF
printf '{"default": [{"type": "insecureAcceptAnything"}]}\n' >"$CACHE/policy.json"

store() { # buildah with our own storage and no daemon, registry or user namespace
  local command=$1 policy=()
  shift
  case $command in build | from | push | pull) policy=(--signature-policy "$CACHE/policy.json") ;; esac
  CONTAINERS_STORAGE_CONF=$CACHE/storage.conf BUILDAH_ISOLATION=chroot TMPDIR=$CACHE \
    buildah "$command" "${policy[@]}" "$@"
}
