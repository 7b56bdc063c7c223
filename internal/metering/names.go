package metering

// names appends the name section, where the module has one: the names of the
// module and of its functions, at their new indices, so that a trap's text
// still tells where it happened. All other custom sections are left out: what
// they say about offsets (debug information) is no longer true.
func (w *rewriter) names(b []byte) []byte {
	r := &reader{data: w.m.data, pos: w.m.names.start, end: w.m.names.end}
	if !r.more() {
		return b
	}
	content := appendName(nil, "name")
	for last := -1; r.more(); {
		id := r.byte("subsection")
		size := int(r.u32("size of a subsection"))
		start := r.pos
		r.skip(size, "subsection")
		if !r.ok() || int(id) <= last {
			return b
		}
		last = int(id)
		inner := &reader{data: w.m.data, pos: start, end: start + size}
		switch id {
		case 0:
			name := inner.name("name of the module")
			if inner.more() || !inner.ok() {
				return b
			}
			content = appendSection(content, id, appendName(nil, name))
		case 1:
			functions, ok := w.functionNames(inner)
			if !ok {
				return b
			}
			content = appendSection(content, id, functions)
		}
	}
	return appendSection(b, sectionCustom, content)
}

// functionNames returns the subsection with the names of functions.
func (w *rewriter) functionNames(r *reader) (content []byte, ok bool) {
	n := r.count("names", r.end)
	content = appendU32(nil, uint32(n+addedImports+helperCount))
	imported := uint32(w.m.importedFunctions)
	addImports := func() {
		content = appendName(appendU32(content, imported), exportPrefix+ImportRefuel)
		content = appendName(appendU32(content, imported+1), exportPrefix+ImportOverflow)
	}
	last, added := int64(-1), false
	for range n {
		i := r.u32("index of a function")
		name := r.name("name of a function")
		if !r.ok() || int64(i) <= last || int(i) >= len(w.m.functions) {
			return nil, false
		}
		last = int64(i)
		if i >= imported && !added {
			addImports()
			added = true
		}
		content = appendName(appendU32(content, w.moved(i)), name)
	}
	if r.more() {
		return nil, false
	}
	if !added {
		addImports()
	}
	for i, name := range helperNames {
		content = appendName(appendU32(content, w.helperIndex(i)), exportPrefix+name)
	}
	return content, true
}
