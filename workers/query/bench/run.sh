#!/usr/bin/env bash
# SQL over HTTP beside DuckDB in process, over the same Parquet file, in one table. Nothing is left running.
#
#   run.sh [ROWS]      500,000 rows by default
#
# The sample, the peer's virtual environment and all output lie outside the clone, under $CACHE.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
rows=${1:-500000}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lakehouse
target=${CARGO_TARGET_DIR:-$cache/target}
venv=$cache/bench-venv
sample=$cache/bench/staffing-$rows.csv
lakehouse=$target/release/lakehouse

command -v python3 >/dev/null || { echo "python3 is missing: the peer runs in it (Debian: apt-get install python3-venv)." >&2; exit 1; }
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"

[ -x "$lakehouse" ] || { echo "$lakehouse is missing: \`make release\` builds it." >&2; exit 1; }
if [ ! -s "$sample" ]; then
    mkdir -p "$(dirname "$sample")"
    "$lakehouse" sample staffing --rows "$rows" --out "$sample.part"
    mv "$sample.part" "$sample"
fi

exec "$venv/bin/python" "$here/compare.py" "$lakehouse" "$sample"
