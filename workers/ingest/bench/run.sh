#!/usr/bin/env bash
# CSV to Parquet beside polars and DuckDB: wall time and peak memory of whole processes, in one table.
#
#   run.sh [ROWS] [RUNS]      500,000 rows and 5 runs of each by default
#
# The sample, the peers' virtual environment and all output lie outside the clone, under $CACHE.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
rows=${1:-500000}
runs=${2:-5}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lakehouse
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
venv=$cache/bench-venv
sample=$cache/bench/staffing-$rows.csv

command -v python3 >/dev/null || { echo "python3 is missing: the peers run in it (Debian: apt-get install python3-venv)." >&2; exit 1; }
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"

cd "$here/.."
# Together with the binary's package, so that what both use is compiled once.
cargo build --quiet --release -p lakehouse -p lakehouse-ingest --example csv_to_parquet
if [ ! -s "$sample" ]; then
    mkdir -p "$(dirname "$sample")"
    "$CARGO_TARGET_DIR/release/lakehouse" sample staffing --rows "$rows" --out "$sample.part"
    mv "$sample.part" "$sample"
fi

exec "$venv/bin/python" "$here/measure.py" "$sample" "$runs" "$CARGO_TARGET_DIR/release/examples/csv_to_parquet"
