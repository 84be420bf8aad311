#!/usr/bin/env bash
# The staffing sample end to end: a CSV becomes a Dataset and an index of its resumes by `lakehouse job`, as pods do it, with
# rows a second, peak memory and where the time goes. Then a filtered search over it. Nothing is left running.
#
#   run.sh [ROWS]      500,000 rows by default
#
# The sample and all output lie outside the clone, under $CACHE.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
rows=${1:-500000}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lakehouse
lakehouse=${CARGO_TARGET_DIR:-$cache/target}/release/lakehouse
sample=$cache/bench/staffing-$rows.csv

command -v python3 >/dev/null || { echo "python3 is missing: it measures and prints (Debian: apt-get install python3)." >&2; exit 1; }
[ -x "$lakehouse" ] || { echo "$lakehouse is missing: \`make release\` builds it." >&2; exit 1; }
if [ ! -s "$sample" ]; then
    mkdir -p "$(dirname "$sample")"
    "$lakehouse" sample staffing --rows "$rows" --out "$sample.part"
    mv "$sample.part" "$sample"
fi

exec python3 "$here/measure.py" "$lakehouse" "$sample"
