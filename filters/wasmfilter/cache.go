package wasmfilter

import (
	"fmt"
	"os"

	"github.com/tetratelabs/wazero"
)

// openCache opens a folder of compiled modules, and makes it if it isn't
// there. What is in it is executed, guarded by no more than a checksum: so
// nobody else may write there.
func openCache(dir string) (wazero.CompilationCache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("compilation cache: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("compilation cache: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("compilation cache: %s is not a folder", dir)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("compilation cache: others can write to %s (mode %04o): chmod 700 it", dir, info.Mode().Perm())
	}
	if owner, foreign := foreignOwner(info); foreign {
		return nil, fmt.Errorf("compilation cache: %s belongs to user %d", dir, owner)
	}
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, fmt.Errorf("compilation cache: %w", err)
	}
	return cache, nil
}
