#!/usr/bin/env bash
# Sentence transformers here beside their Python original: the same model, texts and number of threads, in one table.
#
#   run.sh [TEXTS]      2,000 by default
#
# The model has the shape of all-MiniLM-L6-v2 and random weights: speed does not depend on what it has learned.
# The peer's virtual environment (3 GB), the model and the texts lie outside the clone, under $CACHE.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
texts=${1:-2000}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lakehouse
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
venv=$cache/bench-embed-venv

command -v python3 >/dev/null || { echo "python3 is missing: the peer runs in it (Debian: apt-get install python3-venv)." >&2; exit 1; }
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
cargo build --quiet --release --manifest-path "$here/../Cargo.toml" --example speed

exec "$venv/bin/python" "$here/compare.py" "$CARGO_TARGET_DIR/release/examples/speed" "$cache/bench/embed" "$texts"
