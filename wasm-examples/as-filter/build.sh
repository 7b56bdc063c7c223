#!/bin/sh
# Builds filter.wasm, or the file that is named. With --versions it prints what it would build with. Exit 77: that is missing.
set -eu
cd "$(dirname "$0")"

# npx fetches the compiler into npm's cache, unless it is there or npm is told to stay offline.
pinned=assemblyscript@0.28.20
if ! command -v npx >/dev/null || ! version=$(npx --yes --package="$pinned" asc --version 2>/dev/null); then
	echo "npx (of Node.js), or $pinned in its reach, is missing" >&2
	exit 77
fi
if [ "${1:-}" = --versions ]; then
	echo "AssemblyScript ${version#Version }"
	exit
fi
npx --yes --package="$pinned" asc filter.ts -O3 --runtime incremental --use abort= -o "${1:-filter.wasm}"
