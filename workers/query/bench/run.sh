#!/usr/bin/env bash
# SQL over HTTP beside DuckDB in process, over the same Parquet file. Prints a table; nothing is left running.
#
# Usage: run.sh [ROWS]     (default: 500000)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lakehouse
venv=$cache/bench-venv
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import duckdb, pyarrow; assert duckdb.__version__ == "1.5.5"' 2>/dev/null \
    || "$venv/bin/pip" install --quiet duckdb==1.5.5 pyarrow
cd "$here/../../.."
cargo build --quiet --profile "${PROFILE:-release}" -p lakehouse-query --example serve_parquet
target=${CARGO_TARGET_DIR:-target}
folder=${PROFILE:-release}
exec "$venv/bin/python" "$here/compare.py" "$target/${folder/#dev/debug}/examples/serve_parquet" "${1:-500000}"
