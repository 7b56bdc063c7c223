//go:build unix

package wasmfilter

import (
	"io/fs"
	"os"
	"syscall"
)

// foreignOwner reports whether a file belongs to somebody else than this
// process's user and root.
func foreignOwner(info fs.FileInfo) (owner int, foreign bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(stat.Uid), stat.Uid != 0 && int(stat.Uid) != os.Geteuid()
}

// reserve returns zeroed memory that takes no room before it is touched, or
// nil.
func reserve(size int) []byte {
	memory, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil
	}
	return memory
}

func unreserve(memory []byte) { _ = syscall.Munmap(memory) }
