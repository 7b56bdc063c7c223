#!/bin/sh
# Builds batch.wasm, or the file that is named. With --versions it prints what it would build with. Exit 77: that is missing.
set -eu
cd "$(dirname "$0")"

# Xcode's clang, for one, comes without the target and the linker.
if ! command -v clang >/dev/null || ! command -v wasm-ld >/dev/null || ! clang -print-targets | grep -q wasm32; then
	echo "clang with the target wasm32, or wasm-ld, is missing (Debian: apt-get install clang lld)" >&2
	exit 77
fi
if [ "${1:-}" = --versions ]; then
	clang --version | head -n 1
	wasm-ld --version
	exit
fi
clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry,--strip-all,--stack-first -o "${1:-batch.wasm}" batch.c
