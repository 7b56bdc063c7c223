#!/bin/sh
# Builds normalise.wasm, or the file that is named. With --versions it prints what it would build with. Exit 77: that is missing.
set -eu
cd "$(dirname "$0")"

# The first rustc that has the target's standard library.
for rustc in "${RUSTC:-}" rustc /usr/bin/rustc; do
	command -v "$rustc" >/dev/null || continue
	libs=$("$rustc" --print target-libdir --target wasm32-unknown-unknown 2>/dev/null) && [ -d "$libs" ] && break
	rustc=
done
if [ -z "$rustc" ]; then
	echo "rustc with the target wasm32-unknown-unknown is missing (rustup target add wasm32-unknown-unknown, or Debian's libstd-rust-dev-wasm32)" >&2
	exit 77
fi
if [ "${1:-}" = --versions ]; then
	"$rustc" --version
	exit
fi
"$rustc" --edition 2021 --target wasm32-unknown-unknown --crate-type cdylib -O -C lto -C panic=abort -C strip=symbols \
	-o "${1:-normalise.wasm}" normalise.rs
