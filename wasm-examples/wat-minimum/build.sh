#!/bin/sh
# Builds minimum.wasm, or the file that is named. With --versions it prints what it would build with. Exit 77: that is missing.
set -eu
cd "$(dirname "$0")"

if ! command -v wat2wasm >/dev/null; then
	echo "wat2wasm is missing (Debian: apt-get install wabt)" >&2
	exit 77
fi
if [ "${1:-}" = --versions ]; then
	echo "wat2wasm $(wat2wasm --version)"
	exit
fi
wat2wasm minimum.wat -o "${1:-minimum.wasm}"
