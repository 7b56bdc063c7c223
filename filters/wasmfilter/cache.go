package wasmfilter

import (
	"context"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

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

// compile compiles a module. A file of the cache that is damaged must not keep
// a program from starting: the cache is emptied then.
func (r *Runtime) compile(ctx context.Context, binary []byte) (wazero.CompiledModule, error) {
	compiled, err := r.wazero.CompileModule(ctx, binary)
	if err == nil || r.cache == nil || !strings.Contains(err.Error(), "compilationcache:") {
		return compiled, err
	}
	r.config.Logger.Warn("the compilation cache is damaged and is emptied", "dir", r.config.CacheDir, "error", err)
	if err := emptyCache(r.config.CacheDir); err != nil {
		return nil, fmt.Errorf("compilation cache: %w", err)
	}
	return r.wazero.CompileModule(ctx, binary)
}

// emptyCache removes compiled modules: files that wazero has named by a hash,
// in a folder of its version.
func emptyCache(dir string) error {
	files, err := fs.Glob(os.DirFS(dir), "wazero-*/"+strings.Repeat("?", 64))
	if err != nil {
		return err
	}
	for _, file := range files {
		if _, err := hex.DecodeString(path.Base(file)); err != nil {
			continue
		}
		if err := os.Remove(filepath.Join(dir, filepath.FromSlash(file))); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}
