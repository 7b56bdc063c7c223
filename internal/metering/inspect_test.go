package metering_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/filterd/filterd/internal/metering"
)

func TestInspect(t *testing.T) {
	info, err := metering.Inspect(everything(), metering.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want := `{Size:280 Component:false Extism:false Command:false ` +
		`Imports:[{Module:wasi_snapshot_preview1 Name:sched_yield Kind:function Signature:() -> i32}] ` +
		`Exports:[{Name:one Kind:function Signature:(i32) -> (i32, i64)} {Name:memory Kind:memory Signature:() -> ()} ` +
		`{Name:table Kind:table Signature:() -> ()} {Name:global Kind:global Signature:() -> ()}] ` +
		`Memories:[{Min:1 Max:3 HasMax:true Imported:false}] Tables:[{Element:funcref Min:2 Max:5 HasMax:true Imported:false}] ` +
		`Functions:2 HasStart:true Custom:[{Name:name Size:16 Producers:[]} ` +
		`{Name:producers Size:18 Producers:[{Field:language Name:none Version:1}]}] Refused:<nil>}`
	if got := fmt.Sprintf("%+v", *info); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !info.Exported("one") || info.Exported("memory") || info.Exported("two") {
		t.Error("Exported is wrong")
	}
}

func TestInspectKinds(t *testing.T) {
	for _, c := range []struct {
		name                       string
		binary                     []byte
		component, extism, command bool
		refused                    string
	}{
		{"component", []byte("\x00asm\x0d\x00\x01\x00rest"), true, false, false, "<nil>"},
		{"core", []byte(header), false, false, false, "<nil>"},
		{"Extism by import", module(func(a *asm) { a.importFunc("extism:host/env", "input_length", a.unit()) }), false, true, false, "<nil>"},
		{"Extism by export", module(func(a *asm) { a.export("extism_hook", 0, a.fn(a.unit(), nil, nil)) }), false, true, false, "<nil>"},
		{"command", module(func(a *asm) {
			a.importFunc("wasi_snapshot_preview1", "sched_yield", a.unit())
			a.export("_start", 0, a.fn(0, nil, nil))
		}), false, false, true, "<nil>"},
		{"refused", section(2, 1, "env", "memory", byte(2), byte(0), 1), false, false, false,
			`byte 11: import "memory" from "env" is a memory; only functions can be imported`},
	} {
		info, err := metering.Inspect(c.binary, metering.Limits{})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if info.Component != c.component || info.Extism != c.extism || info.Command != c.command || fmt.Sprint(info.Refused) != c.refused {
			t.Errorf("%s: %+v", c.name, *info)
		}
	}
	if _, err := metering.Inspect([]byte("\x00asm\x01\x00\x00\x00\x01"), metering.Limits{}); err == nil {
		t.Error("a truncated module was described")
	}
}

// TestInputIsKept checks that Instrument leaves what it is given alone, and
// gives the same for it each time: a cache of compiled modules is keyed by it.
func TestInputIsKept(t *testing.T) {
	binary := generate(3)
	before := bytes.Clone(binary)
	first, second := instrument(t, binary), instrument(t, binary)
	if !bytes.Equal(binary, before) {
		t.Error("the input changed")
	}
	if !bytes.Equal(first, second) {
		t.Error("two results")
	}
	if _, err := metering.Instrument(first, metering.Limits{}); err == nil {
		t.Error("an instrumented module was taken again")
	}
}
