#!/usr/bin/env bash
# Makes an image of one layer from a folder, which becomes its root, and writes it as a docker-archive, the format that
# `docker load`, `podman load`, `ctr images import` and `skopeo` read. Equal files give an equal archive, whoever makes
# it and whenever. Needs no root and no tool beyond tar, since Docker's Dockerfile cannot be used without a network.
#   archive.sh TAG ARCHIVE.tar FOLDER CONFIG     CONFIG: the `config` of an OCI image, in JSON: {"Entrypoint": ["/pause"]}
set -euo pipefail
tag=$1 archive=$2 folder=$3 config=$4
case $(uname -m) in x86_64) architecture=amd64 ;; aarch64) architecture=arm64 ;; *) architecture=$(uname -m) ;; esac
# A tag without a registry is Docker's own registry's, for who loads it as for who asks for it.
case $tag in */*) ;; *) tag=docker.io/library/$tag ;; esac
mkdir -p "$(dirname "$archive")"
# Beside the archive, since images are large and the folder for temporary files may be small.
work=$(mktemp -d "$archive.XXXXXX")
trap 'rm -rf "$work"' EXIT
pack() { tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --file "$@"; }

# Folders for temporary files are closed to others; the image's root must not be.
chmod 755 "$folder"
pack "$work/layer.tar" --directory "$folder" .
layer=$(sha256sum "$work/layer.tar" | cut -d ' ' -f 1)
cat >"$work/config.json" <<JSON
{"architecture": "$architecture", "os": "linux", "created": "1970-01-01T00:00:00Z", "config": $config,
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}, "history": [{"created": "1970-01-01T00:00:00Z"}]}
JSON
echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"$tag\"], \"Layers\": [\"layer.tar\"]}]" >"$work/manifest.json"
pack "$work/image.tar" --directory "$work" manifest.json config.json layer.tar
mv "$work/image.tar" "$archive"
