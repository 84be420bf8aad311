#!/usr/bin/env bash
# Makes an image from one folder, which becomes its root, and writes it as a docker-archive. Needs nothing from the network.
#   archive.sh TAG ARCHIVE.tar FOLDER [CONFIG…]     CONFIG: flags of `buildah config`, such as --entrypoint '["/pause"]'
set -euo pipefail
command -v buildah >/dev/null || { echo "buildah is missing: it makes images (Debian: apt-get install buildah)." >&2; exit 1; }
tag=$1 archive=$2 folder=$3
shift 3
mkdir -p "$(dirname "$archive")"
# Beside the archive, since images are large and the folder for temporary files may be small.
work=$(mktemp -d "$archive.XXXXXX")
trap 'rm -rf "$work"' EXIT
# A store of its own leaves nothing behind on the machine.
buildah() { command buildah --root "$work/root" --runroot "$work/run" --storage-driver vfs "$@"; }
container=$(buildah from scratch)
buildah copy --quiet --chown 0:0 "$container" "$folder" / >/dev/null
buildah config --user 65532:65532 "$@" "$container"
# Equal files give an equal image, whenever they are made.
buildah commit --quiet --timestamp 0 "$container" "$tag" >/dev/null
buildah push --quiet "$tag" "docker-archive:$work/image.tar:$tag" >/dev/null
mv "$work/image.tar" "$archive"
