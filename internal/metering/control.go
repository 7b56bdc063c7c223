package metering

import "math"

// blockType reads the type of a block.
func (s *scanner) blockType() (params, results int) {
	r := s.r
	start := r.pos
	n := r.leb("type of a block", 33, true)
	switch {
	case !r.ok():
	case n >= 0 && n < int64(len(s.m.types)):
		t := &s.m.types[n]
		s.vectors = s.vectors || t.hasVector()
		return len(t.Params), len(t.Results)
	case n >= 0:
		r.fail(Malformed, start, "type %d of %d", n, len(s.m.types))
	case r.pos-start > 1:
		r.fail(Unsupported, start, "the type of a block in more bytes than it takes")
	case n == -64: // nothing
	default:
		t := ValueType(n & 0x7f)
		if !t.isValue() {
			r.failType(start, t, "type of a block")
		}
		s.vectors = s.vectors || t == V128
		return 0, 1
	}
	return 0, 0
}

// top returns the innermost open block.
func (s *scanner) top() *frame { return &s.frames[len(s.frames)-1] }

func (s *scanner) open(op byte, start int) {
	params, results := s.blockType()
	if op == opIf {
		s.pop(1, start)
	}
	s.pop(params, start)
	if len(s.frames) > s.m.limits.Depth {
		s.r.fail(TooLarge, start, "blocks nested more than %d deep", s.m.limits.Depth)
	}
	if !s.r.ok() {
		return
	}
	s.values += params + results
	s.spend(int(plain[op].cost))
	s.frames = append(s.frames, frame{
		op: op, params: params, results: results, base: s.height,
		outer: s.current, lowest: math.MaxInt, chain: s.chain,
	})
	s.push(params)
	switch op {
	case opLoop:
		s.merges++
		s.chain = 0
		s.edit(edit{start, start, editLoop, uint32(len(s.loops))})
		s.loops = append(s.loops, loop{outer: s.loop})
		s.loop = len(s.loops) - 1
		s.depth++
		s.values += s.depth / 8
		s.segment(segment{parent: s.current, mandatory: true, cost: 1})
		s.top().head = s.current
	case opIf:
		s.chain++
		s.segment(segment{parent: s.current})
	}
}

// segment begins a segment here, unless this place is never reached.
func (s *scanner) segment(next segment) {
	if next.parent < 0 {
		s.current = -1
		return
	}
	next.loop = s.loop
	s.current = len(s.segments)
	s.segments = append(s.segments, next)
	s.edit(edit{s.r.pos, s.r.pos, editCharge, uint32(s.current)})
}

// leave checks the operands at the end of a block and drops them.
func (s *scanner) leave(start int) {
	f := s.top()
	have := s.height - f.base
	if have != f.results && !(f.unreachable && have < f.results) {
		s.r.fail(Malformed, start, "%d operands at the end of a block with %d results", have, f.results)
	}
	s.height = f.base
}

func (s *scanner) reachElse(start int) {
	f := s.top()
	if f.op != opIf {
		s.r.fail(Malformed, start, "an else without an if")
		return
	}
	s.leave(start)
	f.op = opElse
	f.unreachable = false
	f.targeted = f.targeted || s.current >= 0
	s.push(f.params)
	s.chain = f.chain + 1
	s.segment(segment{parent: f.outer})
}

func (s *scanner) close(start int) {
	s.leave(start)
	f := *s.top()
	if f.op == opIf && f.params != f.results {
		s.r.fail(Malformed, start, "an if of %d parameters and %d results without an else", f.params, f.results)
	}
	if !s.r.ok() {
		return
	}
	if f.op == opLoop {
		s.closeLoop()
	}
	own := len(s.frames) - 1
	s.frames = s.frames[:own]
	if own == 0 {
		return
	}
	s.push(f.results)
	outer := s.top()
	outer.sets += f.sets
	outer.lowest = min(outer.lowest, f.lowest)
	if f.outer < 0 {
		return // never reached, and so is what follows
	}
	next := segment{parent: f.outer, definite: f.lowest >= own}
	moved := min(f.sets, s.locals)
	switch f.op {
	case opLoop:
		moved += f.params
		s.segments[f.head].cost += int64(moved / valuesPerCost)
		if s.current >= 0 {
			s.segment(next)
		}
	case opIf, opElse, opBlock:
		if f.op == opBlock && !f.targeted {
			return // left through its end only: the segment goes on
		}
		s.merges++
		s.chain = 0
		moved += f.results
		if s.current < 0 && !f.targeted && f.op == opElse {
			return // both ways end elsewhere
		}
		next.cost = int64(moved / valuesPerCost)
		s.segment(next)
	}
	s.merge(moved)
}

// closeLoop goes back to the loop around the innermost open one.
func (s *scanner) closeLoop() {
	s.depth--
	l := s.loops[s.loop]
	if s.loop = l.outer; s.loop >= 0 && l.calls {
		s.loops[s.loop].calls = true
	}
}

// target notes a branch to the label and returns how many operands it takes.
func (s *scanner) target(at int, depth uint32) int {
	if int64(depth) >= int64(len(s.frames)) {
		s.r.fail(Malformed, at, "label %d of %d", depth, len(s.frames))
		return 0
	}
	s.reached += s.chain
	number := len(s.frames) - 1 - int(depth)
	f := &s.frames[number]
	if s.current >= 0 {
		top := s.top()
		top.lowest = min(top.lowest, number)
		f.targeted = true
	}
	if f.op == opLoop {
		return f.params
	}
	return f.results
}

// branch reads an instruction behind which the code does not simply go on.
func (s *scanner) branch(op byte, start int) {
	r := s.r
	s.spend(int(plain[op].cost))
	switch op {
	case opBrIf:
		at := r.pos
		n := s.target(at, r.u32("label"))
		s.pop(1, start)
		s.pop(n, start)
		s.push(n)
		s.values += n
		s.chain++
		s.spend(n / valuesPerCost)
		if r.ok() {
			s.segment(segment{parent: s.current})
		}
		return
	case opBr:
		at := r.pos
		n := s.target(at, r.u32("label"))
		s.pop(n, start)
		s.values += n
		s.spend(n / valuesPerCost)
	case opBrTable:
		s.branchTable(start)
	case opReturn:
		s.edit(edit{start, r.pos, editReturn, uint32(len(s.frames) - 1)})
		s.pop(s.target(start, uint32(len(s.frames)-1)), start)
	}
	if !r.ok() {
		return
	}
	f := s.top()
	s.height = f.base
	f.unreachable = true
	s.current = -1
}

func (s *scanner) branchTable(start int) {
	r := s.r
	s.pop(1, start)
	n := r.count("targets of a br_table", s.m.limits.BranchTargets)
	operands := -1
	for range n + 1 { // and the default
		at := r.pos
		want := s.target(at, r.u32("label"))
		if !r.ok() {
			return
		}
		if operands >= 0 && want != operands {
			r.fail(Malformed, at, "a br_table to labels with %d and %d operands", operands, want)
		}
		operands = want
		s.values += want + 1
	}
	s.values += n * n / 512
	s.spend(operands / valuesPerCost)
	s.pop(operands, start)
}

// call reads a call and changes the index of its function.
func (s *scanner) call(op byte, start int) {
	m, r := s.m, s.r
	at := r.pos
	var signature *Signature
	cost := int(plain[op].cost)
	switch op {
	case opCall:
		n := index(r, "function", len(m.functions))
		if !r.ok() {
			return
		}
		signature = &m.types[m.functions[n]]
		if int(n) < m.importedFunctions {
			cost = costCallImport
			s.values += m.importedFunctions / 64 // searched for each call
		}
		s.edit(edit{at, r.pos, editCall, n})
	case opCallIndirect:
		t := m.typeIndex(r)
		index(r, "table", len(m.tables))
		if !r.ok() {
			return
		}
		signature = &m.types[t]
		s.pop(1, start)
		if s.loop >= 0 {
			s.loops[s.loop].calls = true
		}
	}
	params, results := len(signature.Params), len(signature.Results)
	s.calls++
	s.values += params + results
	s.spend(cost + (params+results)/2)
	s.pop(params, start)
	s.arguments = max(s.arguments, params+results)
	s.vectors = s.vectors || signature.hasVector()
	s.push(results)
}
