#!/usr/bin/env bash
# The stories, on a real Kubernetes: on that of KUBECONFIG when it is set, else on a cluster of our own (root on Linux).
#   run.sh up             a cluster with MinIO and Lakehouse on it; it stays until `run.sh down`
#   run.sh test [ARGS…]   the stories on such a cluster, which is ended behind them; ARGS are names of stories, all without any
#   run.sh bench          how long an apply takes to Ready on such a cluster, and where the time goes
#   run.sh down
# A cluster of yours pulls the images LAKEHOUSE_E2E_IMAGE, and LAKEHOUSE_E2E_{MINIO,FILES,OLLAMA}_IMAGE.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
cluster=$here/cluster/cluster.sh
images=${XDG_CACHE_HOME:-$HOME/.cache}/lakehouse/images
target=${CARGO_TARGET_DIR:-$root/target}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -1)
ours=${KUBECONFIG:+no}
installed=
if [ "$ours" = no ] && [ -z "${LAKEHOUSE_E2E_IMAGE:-}" ]; then
  echo "KUBECONFIG names a cluster of yours: set LAKEHOUSE_E2E_IMAGE to an image that it can pull (\`make image\` makes one)." >&2
  exit 1
fi
# Two clones test beside each other, and neither on the cluster of `make cluster`, whatever that has exported.
[ "${1:-}" = up ] || LAKEHOUSE_CLUSTER=${LAKEHOUSE_E2E_CLUSTER:-e2e-$(echo "$root" | sha256sum | cut -c -8)}
export LAKEHOUSE_CLUSTER=${LAKEHOUSE_CLUSTER:-lakehouse}
export LAKEHOUSE_E2E_IMAGE=${LAKEHOUSE_E2E_IMAGE:-lakehouse:$version-dev}
export LAKEHOUSE_E2E_MINIO_IMAGE=${LAKEHOUSE_E2E_MINIO_IMAGE:-minio:e2e}
export LAKEHOUSE_E2E_FILES_IMAGE=${LAKEHOUSE_E2E_FILES_IMAGE:-localhost/files:1}
export LAKEHOUSE_E2E_OLLAMA_IMAGE=${LAKEHOUSE_E2E_OLLAMA_IMAGE:-ollama:e2e}
export LAKEHOUSE_E2E_CHARTS=$root/charts
export LAKEHOUSE_E2E_VALUES=$here/values.yaml
# The keys of cluster/minio.yaml.
export LAKEHOUSE_E2E_ACCESS_KEY=lakehouse-test LAKEHOUSE_E2E_SECRET_KEY=a-secret-of-the-tests-only

# A command that sees the cluster, its Services by name when it is ours.
on() { if [ "$ours" = no ]; then PATH="$("$cluster" build):$PATH" "$@"; else "$cluster" run "$@"; fi; }

minio_image() {
  local minio archive folder
  minio=$("$here/parts/minio.sh")
  archive=$images/$(basename "$(dirname "$minio")").tar
  if [ ! -e "$archive" ]; then
    mkdir -p "$images"
    folder=$(mktemp -d "$images/minio.XXXXXX")
    cp "$minio" "$folder/minio"
    "$root/image/archive.sh" minio:e2e "$archive" "$folder" '{"User": "65532:65532", "Entrypoint": ["/minio"]}' ||
      { rm -rf "$folder"; return 1; }
    rm -rf "$folder"
  fi
  echo "$archive"
}

# With its tiny models in it. Equal inputs find the archive of an earlier run.
ollama_image() {
  local ollama archive folder
  ollama=$("$here/parts/ollama.sh")
  archive=$images/$(basename "$(dirname "$ollama")")-$(cat "$here"/parts/src/{gguf,ollama}.rs | sha256sum | cut -c -12).tar
  if [ ! -e "$archive" ]; then
    mkdir -p "$images"
    folder=$(mktemp -d "$images/ollama.XXXXXX")
    {
      "$target/debug/ollama-models" "$folder/models" && cp "$ollama" "$folder/ollama" &&
        "$root/image/libraries.sh" "$folder" "$ollama" &&
        "$root/image/archive.sh" ollama:e2e "$archive" "$folder" '{"User": "65532:65532", "Entrypoint": ["/ollama"]}'
    } || { rm -rf "$folder"; return 1; }
    rm -rf "$folder"
  fi
  echo "$archive"
}

# The two binaries as `cargo test` builds them too, so that nothing is compiled twice.
lakehouse_image() {
  local archive=$target/images/lakehouse-$version-dev.tar
  (cd "$root" && cargo build --quiet --workspace --bins --tests)
  "$root/image/build.sh" "$target/debug" "lakehouse:$version-dev" "$archive"
  echo "$archive"
}

up() {
  if [ "$ours" = no ]; then
    # The stories remove this release, so it must be one of their own making.
    if on helm status lakehouse --namespace lakehouse-system >/dev/null 2>&1; then
      echo "This cluster has a release \`lakehouse\` in \`lakehouse-system\` already, and the stories would remove it." >&2
      exit 1
    fi
    installed=yes
    cargo fetch --quiet --locked --manifest-path "$root/Cargo.toml"
  else
    [ "$(id -u)" != 0 ] || "$cluster" install
    "$cluster" doctor
    local archives
    archives=("$(lakehouse_image)" "$(minio_image)" "$(ollama_image)")
    "$cluster" up
    "$cluster" load "${archives[@]}"
  fi
  sed "s|image: minio:e2e|image: $LAKEHOUSE_E2E_MINIO_IMAGE|" "$here/cluster/minio.yaml" | on kubectl apply -f - >/dev/null
  on helm upgrade --install lakehouse-crds "$root/charts/lakehouse-crds" --namespace lakehouse-system --create-namespace \
    --hide-notes >/dev/null
  on helm upgrade --install lakehouse "$root/charts/lakehouse" --namespace lakehouse-system --hide-notes \
    --values "$here/values.yaml" --set "image.repository=${LAKEHOUSE_E2E_IMAGE%:*}" \
    --set "image.tag=${LAKEHOUSE_E2E_IMAGE##*:}" --wait --timeout 3m >/dev/null
  on kubectl --namespace minio rollout status statefulset/minio --timeout 3m >/dev/null
}

# On a cluster of yours, only what `up` has put there goes; the CRDs stay, since your own resources would go with them.
down() {
  if [ "$ours" != no ]; then
    "$cluster" down
  elif [ -n "$installed" ]; then
    on helm uninstall lakehouse --namespace lakehouse-system --ignore-not-found >/dev/null
    on kubectl delete namespace minio --ignore-not-found >/dev/null
  fi
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
  up)
    up
    echo "Lakehouse runs with MinIO as its store. In this cluster, whose network ends in it:"
    echo "  export LAKEHOUSE_CLUSTER=$LAKEHOUSE_CLUSTER"
    echo "  $cluster run bash        # kubectl, helm and http://lakehouse.NAMESPACE.svc:3110 are there"
    echo "  $cluster down"
    echo "The keys of the bucket: AWS_ACCESS_KEY_ID=$LAKEHOUSE_E2E_ACCESS_KEY AWS_SECRET_ACCESS_KEY=$LAKEHOUSE_E2E_SECRET_KEY"
    ;;
  test | bench)
    trap down EXIT
    up
    cd "$root"
    stories=(cargo test --quiet --offline --workspace --no-fail-fast)
    if [ "$command" = bench ]; then
      on "${stories[@]}" --test cluster_bench -- --ignored --nocapture
    else
      # `cluster_operators` comes last: its stories remove the operator that the others share.
      on "${stories[@]}" --test 'cluster_*' -- --test-threads "${LAKEHOUSE_E2E_THREADS:-4}" "$@"
    fi
    ;;
  down) installed=yes && down ;;
  *) sed -n '2,/^set -/{/^set -/d; s/^# \{0,1\}//; p}' "$0"; exit 2 ;;
esac
