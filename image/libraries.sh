#!/usr/bin/env bash
# Copies the shared libraries that binaries ask for into the root of an image, but for libduckdb, which has a place of its own.
#   libraries.sh FOLDER BINARY…
set -euo pipefail
root=$1
shift
# Each library at the path where this system's loader finds it: that is where the copied loader looks, too.
ldd "$@" | grep -o '/[^ ]*\.so[^ :]*' | grep -v libduckdb | sort -u |
  while read -r needed; do install -D -m 755 "$(readlink -f "$needed")" "$root$needed"; done
