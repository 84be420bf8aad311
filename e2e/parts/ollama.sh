#!/bin/sh
# Prints the path of an Ollama server, building it first when this machine has none yet: 3 to 10 minutes, once.
# The result lies outside the clone, in ${XDG_CACHE_HOME:-~/.cache}/lakehouse/parts.
#
# Its module comes without three headers, since Go leaves out folders named `vendor`. They are taken from where other
# modules carry them: an older Ollama, which had two in a folder of another name, and a binding of miniaudio.
set -eu

version=v0.17.4
older=github.com/ollama/ollama@v0.6.8
audio=github.com/gen2brain/malgo@v0.11.24
parts=${XDG_CACHE_HOME:-$HOME/.cache}/lakehouse/parts
home=$parts/ollama-$version
ollama=$home/ollama

folder() {
    go mod download -json "$1" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p'
}

# Into the folder $1, where the includes look for them.
headers() {
    mkdir -p "$1/nlohmann" "$1/stb" "$1/miniaudio"
    common=$(folder "$older")/llama/llama.cpp/common
    cp "$common/json.hpp" "$1/nlohmann/json.hpp"
    echo '#include <nlohmann/json.hpp>' >"$1/nlohmann/json_fwd.hpp"
    cp "$common/stb_image.h" "$1/stb/stb_image.h"
    cp "$(folder "$audio")/miniaudio.h" "$1/miniaudio/miniaudio.h"
}

if [ ! -x "$ollama" ]; then
    for tool in go cc c++; do
        command -v "$tool" >/dev/null || {
            echo "$tool is missing: the tests build an Ollama server with Go 1.25 or newer (https://go.dev/dl), a C and a C++ compiler." >&2
            exit 1
        }
    done
    mkdir -p "$parts"
    # Tests that run side by side build once. Where there is no flock each builds its own, and the last one stays.
    exec 9>"$parts/ollama.lock"
    if command -v flock >/dev/null; then flock 9; fi
    if [ ! -x "$ollama" ]; then
        echo "Building Ollama $version; this takes 3 to 10 minutes, once." >&2
        building=$(mktemp -d "$parts/building.XXXXXX")
        trap 'rm -rf "$building"' EXIT
        # At a fixed place, which the compiler's cache goes by: a build that was broken off goes on where it was.
        headers "$home/include"
        include=-I$home/include
        # Warnings are those of other people's code.
        CGO_ENABLED=1 CGO_CFLAGS="-O2 -w $include" CGO_CXXFLAGS="-O2 -w $include" GOBIN=$building GOFLAGS=-trimpath \
            nice -n 15 go install -ldflags='-s -w' "github.com/ollama/ollama@$version" >&2
        mv "$building/ollama" "$ollama"
    fi
fi
echo "$ollama"
