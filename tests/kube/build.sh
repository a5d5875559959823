#!/usr/bin/env bash
# Builds the cluster's programs from Go modules, once, and prints the folder they are in.
#
#   kubebox      etcd, apiserver, controller-manager, scheduler, kubelet, kube-proxy, kubectl in one file
#   coredns, helm, kwok, pause, kwok-stages.yaml
#
# The folder is named after everything that decides its content (Go files, go.sum, this script, the Go
# release), lies in the user's cache and appears by one rename: a killed build leaves nothing that a
# later one would take for whole. Progress goes to stderr, the folder's path to stdout.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/go"

say() { printf 'build: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
cannot() { say "$*"; exit 3; } # as in up.sh: this machine lacks something

PATH=$PATH:/usr/local/go/bin
command -v go >/dev/null || cannot "Go is missing. Install Go 1.26 or newer (https://go.dev/doc/install) and put it on PATH."
export GOTOOLCHAIN=${GOTOOLCHAIN:-local} CGO_ENABLED=0 GOWORK=off GOFLAGS="-mod=readonly -trimpath -buildvcs=false"
release=$(go env GOVERSION)
[ "$(printf 'go1.26\n%s\n' "$release" | sort -V | head -n1)" = go1.26 ] || cannot "Go 1.26 or newer is wanted, $(command -v go) is $release."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/enginewright/kube
content() { find . -type f -print0 | sort -z | xargs -0 sha256sum; sha256sum ../build.sh; go version; }
bin=$cache/$(content | sha256sum | cut -c1-16)
mkdir -p "$cache"

# One build at a time; whoever waited finds the other's result.
exec 9>"$cache/lock"
flock -n 9 || { say "another build is running: waiting for it"; flock 9; }
if [ -d "$bin" ]; then
  touch "$bin"
  echo "$bin"
  exit
fi

partial=$cache/partial # also the leftovers of a killed build, since we hold the lock
rm -rf "$partial"
mkdir -p "$partial/bin" "$partial/tmp"
trap 'rm -rf "$partial"' EXIT
export GOTMPDIR=$partial/tmp

begun=$SECONDS
compile() { # compile FOLDER PACKAGE NAME [LDFLAGS]
  local start=$SECONDS
  say "$3 ..."
  (cd "$1" && go build -v -p "$(nproc)" -ldflags "-s -w ${4-}" -o "$partial/bin/$3" "$2") 2>&1 | progress "$3" >&2 ||
    die "$3 failed"
  say "$3: $((SECONDS - start)) s"
}
# A line for every 100 of the thousands of packages that `go build -v` names; all else (errors) as it is.
progress() {
  awk -v name="$1" '
    function say(line) { print line; fflush() }
    /^go: downloading / { if (!downloads++) say("build: " name ": downloading modules"); next }
    /^[^ :#]+$/ { if (++packages % 100 == 0) say("build: " name ": " packages " packages compiled"); next }
    { say($0) }'
}

# What `kubectl version` and /version answer: without it they say v0.0.0 and clients misjudge the server.
kubernetes=$(cd kube && go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${kubernetes#v1.}
stamp=""
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  stamp+=" -X $package.gitVersion=$kubernetes -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
  stamp+=" -X $package.gitTreeState=clean -X $package.gitCommit=gomod -X $package.buildDate=2026-01-01T00:00:00Z"
done

say "Kubernetes $kubernetes with $release: about 7 minutes on two cores the first time, seconds after that"
compile kube . kubebox "$stamp"
ln -s kubebox "$partial/bin/kubectl" # it goes by the name it is called by
compile kube ./coredns coredns
compile kube helm.sh/helm/v3/cmd/helm helm
compile pause . pause
compile kwok sigs.k8s.io/kwok/cmd/kwok kwok
# kwok's own command does nothing without a file of stages; its packages embed the default ones.
(cd kwok && go run ./stages) >"$partial/bin/kwok-stages.yaml" || die "kwok's stages failed"

mv "$partial/bin" "$bin"
# Folders of older checkouts are 316 MB each: drop those that nothing used for two weeks.
find "$cache" -mindepth 1 -maxdepth 1 -type d -name '????????????????' -mtime +14 -exec rm -rf {} +
say "done in $((SECONDS - begun)) s, $(du -sh "$bin" | cut -f1) in $bin"
echo "$bin"
