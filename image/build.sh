#!/usr/bin/env bash
# Makes the image of Lakehouse from binaries that are built already, without a network. The Dockerfile gives the same.
#   build.sh BINARIES TAG ARCHIVE.tar     BINARIES: the folder of `lakehouse` and `lakehouse-operator`
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binaries=$1 tag=$2 archive=$3
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../Cargo.toml" | head -1)
newest=$(ls -t "$binaries/lakehouse" "$binaries/lakehouse-operator" "$here"/*.sh | head -1)
[ ! "$archive" -nt "$newest" ] || exit 0

mkdir -p "$(dirname "$archive")"
root=$(mktemp -d "$archive.root.XXXXXX")
trap 'rm -rf "$root"' EXIT
"$here/root.sh" "$binaries" "$root"
"$here/archive.sh" "$tag" "$archive" "$root" --cmd '["/lakehouse"]' --workingdir / \
  --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
  --label org.opencontainers.image.title=lakehouse \
  --label "org.opencontainers.image.version=$version" \
  --label org.opencontainers.image.licenses=Apache-2.0 \
  --label "org.opencontainers.image.description=The operator and the workers of Lakehouse"
echo "$tag: $(du -sm "$root" | cut -f1) MB" >&2
