#!/bin/sh
# Prints the folder of the SDKs that the tests use as clients, fetching them from PyPI and npm when this machine has none of these
# versions yet: `venv` with Python's, `node_modules` with JavaScript's. It lies outside the clone, in ${XDG_CACHE_HOME:-~/.cache}/lakehouse/parts.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
javascript=openai@7.59.0
parts=${XDG_CACHE_HOME:-$HOME/.cache}/lakehouse/parts
home=$parts/sdks-$(cat "$here/requirements.txt" "$0" | cksum | cut -d' ' -f1)

if [ ! -e "$home/done" ]; then
    for tool in python3 npm; do
        command -v "$tool" >/dev/null || {
            echo "$tool is missing: the tests run the SDKs of OpenAI, Anthropic and Ollama with it (Debian: apt-get install python3-venv npm)." >&2
            exit 1
        }
    done
    mkdir -p "$parts"
    # Tests that run side by side fetch once. Where there is no flock the last one is right.
    exec 9>"$parts/sdks.lock"
    if command -v flock >/dev/null; then flock 9; fi
    if [ ! -e "$home/done" ]; then
        rm -rf "$home"
        mkdir -p "$home"
        python3 -m venv "$home/venv" >&2
        "$home/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" >&2
        npm install --silent --no-fund --no-audit --prefix "$home" "$javascript" >&2
        touch "$home/done"
    fi
fi
echo "$home"
