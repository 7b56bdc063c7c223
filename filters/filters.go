// Package filters lists the kinds of filters that filterd comes with. A
// program that wants only one of them imports that one's package.
package filters

import (
	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/exprfilter"
)

// Standard returns every kind.
func Standard() []filterd.Kind {
	return []filterd.Kind{
		filterd.All.Kind(),
		exprfilter.Kind{},
	}
}
