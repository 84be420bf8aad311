#!/bin/sh
# Prints the path of a MinIO server, building it first when this machine has none yet.
# The build takes 2 to 10 minutes once; the result lies outside the clone, in ${XDG_CACHE_HOME:-~/.cache}/lakehouse/parts.
set -eu

version=v0.0.0-20260212201848-7aac2a2c5b7c
parts=${XDG_CACHE_HOME:-$HOME/.cache}/lakehouse/parts
home=$parts/minio-$version-static
minio=$home/minio

if [ ! -x "$minio" ]; then
    command -v go >/dev/null || {
        echo "go is missing: the tests build a MinIO server with Go 1.25 or newer (https://go.dev/dl)." >&2
        exit 1
    }
    mkdir -p "$parts"
    # Tests that run side by side build once. Where there is no flock each builds its own, and the last one stays.
    exec 9>"$parts/minio.lock"
    if command -v flock >/dev/null; then flock 9; fi
    if [ ! -x "$minio" ]; then
        echo "Building MinIO $version; this takes 2 to 10 minutes, once." >&2
        building=$(mktemp -d "$parts/building.XXXXXX")
        trap 'rm -rf "$building"' EXIT
        GOBIN=$building GOFLAGS=-trimpath CGO_ENABLED=0 go install -ldflags='-s -w' "github.com/minio/minio@$version" >&2
        mkdir -p "$home"
        mv "$building/minio" "$minio"
    fi
fi
echo "$minio"
