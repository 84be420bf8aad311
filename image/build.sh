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
"$here/archive.sh" "$tag" "$archive" "$root" '{
  "User": "65532:65532", "Cmd": ["/lakehouse"], "WorkingDir": "/",
  "Env": ["PATH=/", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
  "Labels": {
    "org.opencontainers.image.title": "lakehouse",
    "org.opencontainers.image.description": "The operator and the workers of Lakehouse",
    "org.opencontainers.image.version": "'"$version"'",
    "org.opencontainers.image.licenses": "Apache-2.0"
  }
}'
echo "$tag: $(du -sm "$root" | cut -f1) MB" >&2
