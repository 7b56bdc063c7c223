//go:build !unix

package wasmfilter

import "io/fs"

func foreignOwner(fs.FileInfo) (owner int, foreign bool) { return 0, false }

func reserve(int) []byte { return nil }

func unreserve([]byte) {}
