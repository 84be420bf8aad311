#!/usr/bin/env bash
# Puts DuckDB's official prebuilt library into a folder outside the clone and prints that folder's path.
#
# DuckDB compiles for half an hour; the npm package of its Node bindings carries the same library, ready made.
# Usage: libduckdb.sh [FOLDER]     (default: the cache folder; nothing is fetched when it is there already)
set -euo pipefail

version=1.5.5-r.5
case "$(uname -s)-$(uname -m)" in
    Linux-x86_64)  platform=linux-x64    library=libduckdb.so    sha256=fc23f12e376c47be520f75221288281906e7942e8fd6f6ce4849198ba60d0405 ;;
    Linux-aarch64) platform=linux-arm64  library=libduckdb.so    sha256=d00d007f3f7ca1f2896a5e4b89c2ce141bf0508506a9d6d56f9598b8e59d074e ;;
    Darwin-arm64)  platform=darwin-arm64 library=libduckdb.dylib sha256=b9027d18ef3e8d960568f77e946a83ca68009cb22d71cf7f94de842afdd094d8 ;;
    Darwin-x86_64) platform=darwin-x64   library=libduckdb.dylib sha256=b9027d18ef3e8d960568f77e946a83ca68009cb22d71cf7f94de842afdd094d8 ;;
    *) echo "There is no prebuilt DuckDB for $(uname -s) on $(uname -m): build DuckDB 1.5.5 and set DUCKDB_LIB_DIR to the folder of its library." >&2; exit 1 ;;
esac
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/lakehouse/libduckdb-$version}

if [ ! -f "$folder/$library" ]; then
    command -v npm >/dev/null || { echo "npm is missing: it fetches DuckDB's prebuilt library (Debian: apt-get install npm). Or set DUCKDB_LIB_DIR to a folder that holds $library of DuckDB 1.5.5." >&2; exit 1; }
    mkdir -p "$folder"
    work=$(mktemp -d "$folder/.fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "Fetching DuckDB's library ($platform, about 25 MB)" >&2
    (cd "$work" && npm pack --silent "@duckdb/node-bindings-$platform@$version" >/dev/null && tar xzf ./*.tgz) \
        || { echo "npm could not fetch @duckdb/node-bindings-$platform@$version (its message is above)." >&2; exit 1; }
    found=$( (sha256sum "$work/package/$library" 2>/dev/null || shasum -a 256 "$work/package/$library") | cut -d' ' -f1)
    [ "$found" = "$sha256" ] || { echo "The fetched $library is not the expected one: its SHA-256 is $found." >&2; exit 1; }
    mv "$work/package/LICENSE" "$folder/LICENSE"
    mv "$work/package/$library" "$folder/$library"   # last: the library's presence says that all is there
fi
echo "$folder"
