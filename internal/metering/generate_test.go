package metering_test

import (
	"math/rand/v2"
	"testing"

	"github.com/filterd/filterd/internal/metering"
)

// A generator makes valid modules at random. They may not end: the metered
// one runs first.
type generator struct {
	*rand.Rand
	a       *asm
	sigs    []signature // of functions
	locals  []byte
	results []byte
	labels  [][]byte // what a branch to them takes
	code    []byte
	tables  int
	room    int // instructions that may still be made
}

type signature struct {
	index           int
	params, results []byte
}

var (
	numeric  = []byte{i32, i64, f32, f64}
	allTypes = []byte{i32, i64, f32, f64, v128}
)

func (g *generator) types(most int) []byte {
	t := make([]byte, g.IntN(most+1))
	for i := range t {
		t[i] = allTypes[g.IntN(len(allTypes))]
	}
	return t
}

func (g *generator) signature() signature {
	s := signature{params: g.types(3), results: g.types(3)}
	s.index = g.a.sig(s.params, s.results)
	return s
}

// countCost is what counting a statement costs in fuel: four instructions.
const countCost = 4

// generate makes a module with functions f0, f1… and globals g0, g1… The global
// "count" counts the statements that were run.
func generate(seed uint64) []byte {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 7)), a: newAsm()}
	g.a.memory(1, 2)
	g.tables = g.IntN(3)
	for range g.tables {
		g.a.table(8, 16)
	}
	for i, t := range allTypes {
		g.a.global(t, true, constant(g, t))
		if t != v128 {
			g.a.export([]string{"g0", "g1", "g2", "g3"}[i], 3, i)
		}
	}
	g.a.export("count", 3, g.a.global(i64, true, i64c(0)))
	data := make([]byte, 64)
	for i := range data {
		data[i] = byte(g.IntN(256))
	}
	g.a.dataCount = true
	g.a.datas = append(g.a.datas, cat(byte(0), i32c(16), byte(0x0b), len(data), data), cat(byte(1), len(data), data))
	functions := 1 + g.IntN(6)
	for range functions {
		g.sigs = append(g.sigs, g.signature())
	}
	for i, s := range g.sigs {
		g.function(s)
		g.a.export("f"+string(rune('0'+i)), 0, i)
	}
	if g.tables > 0 {
		list := cat(byte(0), i32c(0), byte(0x0b), functions)
		for i := range functions {
			list = append(list, byte(i))
		}
		g.a.elems = append(g.a.elems, list)
	}
	if g.IntN(8) == 0 {
		for i, s := range g.sigs {
			if len(s.params)+len(s.results) == 0 {
				g.a.start = i
			}
		}
	}
	return g.a.bytes()
}

func (g *generator) function(s signature) {
	extra := append(g.types(5), i32, i64)
	g.locals = append(append([]byte(nil), s.params...), extra...)
	g.results, g.labels, g.code, g.room = s.results, [][]byte{s.results}, nil, 60+g.IntN(200)
	g.statements(4)
	g.exprs(s.results, 3)
	declared := uleb(uint64(len(extra)))
	for _, t := range extra {
		declared = append(declared, 1, t)
	}
	g.a.fn(s.index, declared, g.code)
}

func (g *generator) emit(parts ...any) { g.code = append(g.code, cat(parts...)...) }

func (g *generator) exprs(types []byte, depth int) {
	for _, t := range types {
		g.expr(t, depth)
	}
}

func constant(g *generator, t byte) []byte {
	switch t {
	case i32:
		return i32c(int32(g.Uint32() >> g.IntN(32)))
	case i64:
		return i64c(int64(g.Uint64() >> g.IntN(64)))
	}
	var b []byte
	n := map[byte]int{f32: 4, f64: 8, v128: 16}[t]
	for range n {
		b = append(b, byte(g.IntN(256)))
	}
	switch t {
	case f32:
		b[3] = 0x3f | b[3]&0x80
		return append([]byte{0x43}, b...)
	case f64:
		b[7] = 0x3f | b[7]&0x80
		return append([]byte{0x44}, b...)
	}
	return append([]byte{0xfd, 0x0c}, b...)
}

// A family are opcodes that take operands of the types and give one of type
// result.
type family struct {
	result      byte
	operands    []byte
	first, last int // from 0x100 on: behind the prefix 0xfd
}

var families = []family{
	{i32, []byte{i32, i32}, 0x6a, 0x78}, {i32, []byte{i32, i32}, 0x46, 0x4f}, {i32, []byte{i64, i64}, 0x51, 0x5a},
	{i32, []byte{i32}, 0x67, 0x69}, {i32, []byte{i32}, 0x45, 0x45}, {i32, []byte{i64}, 0x50, 0x50}, {i32, []byte{i64}, 0xa7, 0xa7},
	{i32, []byte{i32}, 0xc0, 0xc1}, {i32, []byte{f32, f32}, 0x5b, 0x60}, {i32, []byte{f64, f64}, 0x61, 0x66}, {i32, []byte{f32}, 0xa8, 0xa9},
	{i64, []byte{i64, i64}, 0x7c, 0x8a}, {i64, []byte{i64}, 0x79, 0x7b}, {i64, []byte{i32}, 0xac, 0xad}, {i64, []byte{i64}, 0xc2, 0xc4},
	{i64, []byte{f64}, 0xb0, 0xb1}, {i64, []byte{f64}, 0xbd, 0xbd},
	{f32, []byte{f32, f32}, 0x92, 0x98}, {f32, []byte{f32}, 0x8b, 0x91}, {f32, []byte{i32}, 0xb2, 0xb3}, {f32, []byte{f64}, 0xb6, 0xb6},
	{f64, []byte{f64, f64}, 0xa0, 0xa6}, {f64, []byte{f64}, 0x99, 0x9f}, {f64, []byte{i64}, 0xb9, 0xba}, {f64, []byte{f32}, 0xbb, 0xbb},
	{v128, []byte{v128, v128}, 0x123, 0x14c}, {v128, []byte{v128, v128}, 0x14e, 0x151}, {v128, []byte{v128, v128, v128}, 0x152, 0x152},
	{v128, []byte{v128, v128}, 0x16e, 0x173}, {v128, []byte{v128, i32}, 0x16b, 0x16d}, {v128, []byte{v128, v128}, 0x18e, 0x193},
	{v128, []byte{v128, v128}, 0x1b5, 0x1ba}, {v128, []byte{v128, v128}, 0x1d5, 0x1df}, {v128, []byte{v128}, 0x1e0, 0x1e1},
	{v128, []byte{v128, v128}, 0x1e4, 0x1eb}, {v128, []byte{v128, v128}, 0x1f0, 0x1f7}, {v128, []byte{v128}, 0x1f8, 0x1ff},
	{v128, []byte{i32}, 0x10f, 0x111}, {v128, []byte{i64}, 0x112, 0x112}, {v128, []byte{f32}, 0x113, 0x113}, {v128, []byte{f64}, 0x114, 0x114},
	{i32, []byte{v128}, 0x153, 0x153}, {i32, []byte{v128}, 0x163, 0x164}, {v128, []byte{v128, v128}, 0x10e, 0x10e},
	{v128, []byte{v128, i32}, 0x1cb, 0x1cd}, {v128, []byte{v128}, 0x1c7, 0x1ca},
}

// loads and stores of each type.
var (
	loads  = map[byte][]byte{i32: {0x28, 0x2c, 0x2d, 0x2e, 0x2f}, i64: {0x29, 0x30, 0x31, 0x35}, f32: {0x2a}, f64: {0x2b}}
	stores = map[byte][]byte{i32: {0x36, 0x3a, 0x3b}, i64: {0x37, 0x3c, 0x3e}, f32: {0x38}, f64: {0x39}}
)

func (g *generator) localOf(t byte) (int, bool) {
	start := g.IntN(len(g.locals))
	for i := range g.locals {
		if n := (start + i) % len(g.locals); g.locals[n] == t {
			return n, true
		}
	}
	return 0, false
}

func globalOf(t byte) int {
	for i, other := range allTypes {
		if t == other {
			return i
		}
	}
	return 0
}

// expr makes code that leaves one value.
func (g *generator) expr(t byte, depth int) {
	g.room--
	if depth <= 0 || g.room < 0 {
		if n, ok := g.localOf(t); ok && g.IntN(3) > 0 {
			g.emit(byte(0x20), n)
		} else {
			g.emit(constant(g, t))
		}
		return
	}
	switch g.IntN(14) {
	case 0:
		g.emit(byte(0x23), globalOf(t))
	case 1:
		g.expr(i32, depth-1)
		g.mask()
		if t == v128 {
			g.emit(byte(0xfd), g.IntN(11), byte(0), g.IntN(1000))
			return
		}
		g.emit(loads[t][g.IntN(len(loads[t]))], byte(0), g.IntN(1000))
	case 2: // a block with a value, perhaps left early
		g.block(0x02, nil, []byte{t}, depth, func() {
			g.expr(t, depth-1)
			g.expr(i32, depth-1)
			g.emit(byte(0x0d), 0)
		})
	case 3:
		g.expr(i32, depth-1)
		g.code = append(g.code, 0x04, t)
		g.labels = append(g.labels, []byte{t})
		g.expr(t, depth-1)
		g.emit(byte(0x05))
		g.expr(t, depth-1)
		g.labels = g.labels[:len(g.labels)-1]
		g.emit(byte(0x0b))
	case 4:
		g.expr(t, depth-1)
		g.expr(t, depth-1)
		g.expr(i32, depth-1)
		g.emit(byte(0x1c), 1, t)
	case 5:
		if n, ok := g.localOf(t); ok {
			g.expr(t, depth-1)
			g.emit(byte(0x22), n)
			return
		}
		g.emit(constant(g, t))
	case 6: // a block that takes values and gives them back in another order
		params, results := g.types(2), append(g.types(2), t)
		index := g.a.sig(params, results)
		g.exprs(params, depth-1)
		g.emit(byte(0x02+g.IntN(2)), index)
		for range params {
			g.emit(byte(0x1a))
		}
		g.labels = append(g.labels, []byte{0}) // not for branches
		g.exprs(results, depth-1)
		g.labels = g.labels[:len(g.labels)-1]
		g.emit(byte(0x0b))
		if n, ok := g.localOf(t); ok {
			g.emit(byte(0x21), n)
			g.drop(len(results) - 1)
			g.emit(byte(0x20), n)
			return
		}
		g.drop(len(results))
		g.emit(constant(g, t))
	case 7:
		for i, s := range g.sigs {
			if len(s.results) == 1 && s.results[0] == t && g.IntN(2) == 0 {
				g.exprs(s.params, depth-1)
				g.emit(byte(0x10), i)
				return
			}
		}
		g.emit(constant(g, t))
	default:
		f := families[g.IntN(len(families))]
		for f.result != t {
			f = families[g.IntN(len(families))]
		}
		op := f.first + g.IntN(f.last-f.first+1)
		if op >= 0x1d5 && op <= 0x1db && op != 0x1d5 || op == 0x1d9 {
			op = 0x1ce // keep clear of the gaps
		}
		g.exprs(f.operands, depth-1)
		if op >= 0x100 {
			g.emit(byte(0xfd), op-0x100)
		} else {
			g.emit(byte(op))
		}
	}
}

func (g *generator) drop(n int) {
	for range n {
		g.emit(byte(0x1a))
	}
}

// mask keeps an address within the first page most of the time.
func (g *generator) mask() {
	if g.IntN(20) > 0 {
		g.emit(i32c(0x7fff), byte(0x71))
	}
}

func (g *generator) block(op byte, label, results []byte, depth int, body func()) {
	if op != 0x03 {
		label = results
	}
	g.emit(op)
	if len(results) == 0 {
		g.emit(byte(void))
	} else {
		g.emit(results[0])
	}
	g.labels = append(g.labels, label)
	g.statements(depth - 1)
	body()
	g.labels = g.labels[:len(g.labels)-1]
	g.emit(byte(0x0b))
}

func (g *generator) statements(depth int) {
	for range 1 + g.IntN(4) {
		if g.room > 0 {
			g.statement(depth)
		}
	}
}

// label picks a label whose operands are known.
func (g *generator) label() (depth int, types []byte) {
	for {
		depth = g.IntN(len(g.labels))
		types = g.labels[len(g.labels)-1-depth]
		if len(types) != 1 || types[0] != 0 {
			return depth, types
		}
	}
}

// statement makes code that leaves nothing.
func (g *generator) statement(depth int) {
	g.room--
	count := len(allTypes)
	g.emit(byte(0x23), count, i64c(1), byte(0x7c), byte(0x24), count)
	switch g.IntN(16) {
	case 0, 1, 2:
		n := g.IntN(len(g.locals))
		g.expr(g.locals[n], depth)
		g.emit(byte(0x21), n)
	case 3:
		t := numeric[g.IntN(4)]
		g.expr(i32, depth)
		g.mask()
		g.expr(t, depth)
		g.emit(stores[t][g.IntN(len(stores[t]))], byte(0), g.IntN(1000))
	case 4:
		t := allTypes[g.IntN(5)]
		g.expr(t, depth)
		g.emit(byte(0x24), globalOf(t))
	case 5, 6:
		g.block(0x02, nil, nil, depth, func() {})
	case 7, 8: // a loop that counts, in a local that others may change
		n, _ := g.localOf(i32)
		g.emit(i32c(int32(1+g.IntN(20))), byte(0x21), n)
		g.block(0x03, nil, nil, depth, func() {
			g.emit(byte(0x20), n, i32c(1), byte(0x6b), byte(0x22), n, i32c(30), byte(0x49), byte(0x20), n, i32c(0), byte(0x47), byte(0x71), byte(0x0d), 0)
		})
	case 9:
		g.expr(i32, depth)
		g.emit(byte(0x04), byte(void))
		g.labels = append(g.labels, nil)
		g.statements(depth - 1)
		if g.IntN(2) == 0 {
			g.emit(byte(0x05))
			g.statements(depth - 1)
		}
		g.labels = g.labels[:len(g.labels)-1]
		g.emit(byte(0x0b))
	case 10:
		l, types := g.label()
		g.exprs(types, depth-1)
		g.expr(i32, depth-1)
		g.emit(byte(0x0d), l)
		g.drop(len(types))
	case 11:
		if g.IntN(3) > 0 {
			return
		}
		l, types := g.label()
		g.exprs(types, depth-1)
		switch g.IntN(3) {
		case 0:
			g.emit(byte(0x0c), l)
		case 1:
			g.expr(i32, depth-1)
			g.emit(byte(0x0e), 2, l, l, l)
		case 2:
			g.drop(len(types))
			g.exprs(g.results, depth-1)
			g.emit(byte(0x0f))
		}
		if g.IntN(2) == 0 {
			g.drop(g.IntN(3)) // code that is never reached may take what it likes
		}
	case 12:
		i := g.IntN(len(g.sigs))
		s := g.sigs[i]
		g.exprs(s.params, depth-1)
		if g.tables > 0 && g.IntN(2) == 0 {
			g.emit(i32c(int32(i)), byte(0x11), s.index, 0)
		} else {
			g.emit(byte(0x10), i)
		}
		g.drop(len(s.results))
	case 13:
		g.emit(i32c(int32(g.IntN(1000))), i32c(int32(g.IntN(1000))), i32c(int32(g.IntN(300))))
		g.emit([][]byte{bulk(10, 0, 0), bulk(11, 0)}[g.IntN(2)])
		if g.IntN(4) == 0 {
			g.emit(i32c(int32(g.IntN(1000))), i32c(int32(g.IntN(64))), i32c(int32(g.IntN(70))), bulk(8, 1, 0))
		}
		if g.IntN(10) == 0 {
			g.emit(bulk(9, 1))
		}
	case 14:
		g.emit(i32c(int32(g.IntN(2))), byte(0x40), byte(0), byte(0x1a), byte(0x3f), byte(0), byte(0x1a))
	case 15:
		if g.tables == 0 {
			return
		}
		table := g.IntN(g.tables)
		g.emit(byte(0xd0), byte(funcref), i32c(int32(g.IntN(3))), bulk(15, table), byte(0x1a))
		g.emit(i32c(int32(g.IntN(9))), i32c(int32(g.IntN(9))), i32c(int32(g.IntN(4))), bulk(14, table, g.IntN(g.tables)))
		g.emit(i32c(int32(g.IntN(9))), byte(0xd2), g.IntN(len(g.sigs)), i32c(int32(g.IntN(4))), bulk(17, table))
	}
}

// TestGeneratedModules compares modules made at random with themselves,
// instrumented.
func TestGeneratedModules(t *testing.T) {
	modules := 500
	if testing.Short() || slow {
		modules = 100
	}
	h := newHost(t)
	called, runs := 0, 0
	for seed := range modules {
		binary := generate(uint64(seed))
		out, err := metering.Instrument(binary, metering.Limits{MemoryPages: 2})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		n, ok := h.same(t, binary, out)
		if !ok {
			t.Fatalf("seed %d: the generator made an invalid module", seed)
		}
		called += n
		if n > 0 {
			runs++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d functions called in %d of %d modules", called, runs, modules)
	if runs < modules/2 {
		t.Errorf("only %d of %d modules ran", runs, modules)
	}
}
