#!/bin/sh
# Builds alert.wasm, or the file that is named. With --versions it prints what it would build with. Exit 77: that is missing.
set -eu
cd "$(dirname "$0")"

if ! command -v go >/dev/null; then
	echo "go is missing" >&2
	exit 77
fi
if [ "${1:-}" = --versions ]; then
	go env GOVERSION
	exit
fi
GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags="-s -w" -o "${1:-alert.wasm}" .
