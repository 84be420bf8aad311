#!/usr/bin/env bash
# Our vector engine beside hnswlib, faiss, usearch and hnsw_rs: build, search at equal recall, filters, memory, streaming.
#
#   run.sh [ROWSxDIMENSION …]      100000x768 and 500000x384 by default
#   PEERS=hnswlib run.sh …         with fewer peers: the others take most of the time
#
# Vectors, the peers' virtual environment and all output lie outside the clone, under $CACHE.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lakehouse
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
venv=$cache/bench-venv
[ $# -gt 0 ] || set -- 100000x768 500000x384

command -v python3 >/dev/null || { echo "python3 is missing: the peers run in it (Debian: apt-get install python3-venv)." >&2; exit 1; }
command -v c++ >/dev/null || { echo "c++ is missing: hnswlib is built from source (Debian: apt-get install g++ python3-dev)." >&2; exit 1; }
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"

cd "$here/.."
cargo build --quiet --release -p lakehouse-ann --example engine
for size in "$@"; do
    folder=$cache/bench/vectors-$size
    "$venv/bin/python" "$here/data.py" "$folder" "${size%x*}" "${size#*x}"
    "$venv/bin/python" "$here/measure.py" "$CARGO_TARGET_DIR/release/examples/engine" "$folder" "${size#*x}" ${PEERS:-}
done
