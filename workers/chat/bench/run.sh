#!/usr/bin/env bash
# What chatd adds to a call of its upstream, beside LiteLLM in the same run, in one table. Nothing is left running.
#
#   run.sh [RATE] [SECONDS]      2,000 requests a second for 10 seconds by default
#
# The upstream answers at once, so all that is measured is in between. The peer's virtual environment lies outside the clone, under
# $CACHE. PROFILE=debug tries the scripts with debug binaries; their numbers say nothing.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lakehouse
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
profile=${PROFILE:-release}
venv=$cache/bench-chat-venv

command -v python3 >/dev/null || { echo "python3 is missing: the peer runs in it (Debian: apt-get install python3-venv)." >&2; exit 1; }
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
lakehouse=$CARGO_TARGET_DIR/$profile/lakehouse
[ -x "$lakehouse" ] || { echo "$lakehouse is missing: \`make release\` builds it." >&2; exit 1; }
cargo build --quiet --profile "${profile/debug/dev}" --manifest-path "$here/../Cargo.toml" --example load
# Each open stream is two connections of chatd.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true

exec "$venv/bin/python" "$here/compare.py" "$lakehouse" "$CARGO_TARGET_DIR/$profile/examples/load" "$venv/bin/litellm" "${1:-2000}" "${2:-10}"
