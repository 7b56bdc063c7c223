//go:build !wasip1

package guest

import (
	"embed"
	"io/fs"
)

//go:embed guest.go host_wasip1.go json.go test.go c/filterd.h rust/filterd.rs assemblyscript/filterd.ts
var sources embed.FS

// Sources returns what modules are written with, to be copied beside one: the
// files of this package, c/filterd.h, rust/filterd.rs and
// assemblyscript/filterd.ts. It exists outside of WebAssembly only.
func Sources() fs.FS { return sources }
