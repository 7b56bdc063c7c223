package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd/filters/wasmfilter"
)

func wasmCheck(c *cli.Context) error {
	file, err := moduleArgument(c)
	if err != nil {
		return err
	}
	return describeModule(c, file)
}

// describeModule loads a module and prints what it is.
func describeModule(c *cli.Context, file string) error {
	module, closeModule, err := loadModule(c, file)
	if err != nil {
		return err
	}
	defer closeModule()
	if asJSON(c) {
		return printJSON(c.App.Writer, module.Info())
	}
	return printInfo(c.App.Writer, module.Info())
}

// printInfo writes what a module is, a label before each line or list.
func printInfo(w io.Writer, i *wasmfilter.Info) error {
	var b strings.Builder
	list := func(label string, values ...string) {
		for _, value := range values {
			fmt.Fprintf(&b, "%-8s %s\n", label, oneLine(value))
			label = ""
		}
	}
	list("name", i.Name)
	list("sha256", i.SHA256)
	list("size", fmt.Sprintf("%s (%s with meters), %s functions", bytesText(int64(i.Size)), bytesText(int64(i.Metered)), grouped(int64(i.Functions))))
	list("abi", fmt.Sprintf("version %d", i.ABI))
	calls := "single"
	if i.Batch {
		calls += ", batch"
	}
	if i.Configure {
		calls += ", configure"
	}
	list("exports", calls)
	wasi := 0
	var imports []string
	for _, name := range i.Imports {
		if strings.HasPrefix(name, "wasi_") {
			wasi++ // a toolchain's, not the author's
		} else {
			imports = append(imports, name)
		}
	}
	if len(imports) == 0 {
		imports = []string{"none"}
	}
	list("imports", imports...)
	if i.WASI {
		list("wasi", count(wasi, "function"))
	} else {
		list("wasi", "not used")
	}
	if i.KV {
		list("kv", "used: the module needs kv, memory or redis")
	} else {
		list("kv", "not used")
	}
	fields := []string{"none declared"}
	if len(i.Fields) > 0 {
		fields = nil
		for _, field := range i.Fields {
			fields = append(fields, string(field))
		}
	}
	list("fields", fields...)
	maximum := "no maximum of its own"
	if i.MemoryMax > 0 {
		maximum = "its own maximum " + bytesText(i.MemoryMax)
	}
	list("memory", fmt.Sprintf("initial %s, %s, limit %s", bytesText(i.MemoryMin), maximum, bytesText(i.MemoryLimit)))
	list("fuel", fmt.Sprintf("limit %s a message, %s to start", grouped(i.Fuel), grouped(i.StartFuelLimit)))
	list("start", fmt.Sprintf("used %s fuel, memory then %s", grouped(int64(i.StartFuel)), bytesText(int64(i.Memory))))
	if len(i.Producers) > 0 {
		list("made by", i.Producers...)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// bytesText writes a size in the largest unit that it is a multiple of.
func bytesText(n int64) string {
	switch {
	case n > 0 && n%(1<<20) == 0:
		return grouped(n>>20) + " MiB"
	case n > 0 && n%(1<<10) == 0:
		return grouped(n>>10) + " KiB"
	}
	return grouped(n) + " bytes"
}

// grouped writes a number as in 100,000,000.
func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}
