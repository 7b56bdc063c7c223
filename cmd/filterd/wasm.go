package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/filters/wasmfilter"
)

func wasmCommand() *cli.Command {
	moduleFlags := []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "what the module is configured with, as `JSON`", Value: "{}"},
		&cli.Int64Flag{Name: "fuel", Usage: "most `INSTRUCTIONS` for a message", Value: wasmfilter.DefaultFuel},
		outputFlag(),
	}
	return &cli.Command{
		Name:  "wasm",
		Usage: "write, build, look at and measure WebAssembly modules",
		Subcommands: []*cli.Command{
			{
				Name:      "new",
				Usage:     "make a folder with a module that builds, a rule for it and its tests",
				ArgsUsage: "LANG NAME",
				Description: "LANG is one of " + languageNames() + ".\n\n" +
					"Example: filterd wasm new c trend && cd trend && filterd wasm build && filterd test",
				Flags:  []cli.Flag{outputFlag()},
				Action: wasmNew,
			},
			{
				Name:      "build",
				Usage:     "build a module, and describe it as check does",
				ArgsUsage: "[FOLDER|FILE]",
				Description: "The language is that of the FILE, or of the only source in the FOLDER (default: this one). The module has\n" +
					"the source's name, in Go the folder's. The command that builds it goes to standard error, as does what the\n" +
					"compiler says; if it refuses the source the exit code is 1, if it is missing 2.",
				Flags:  moduleFlags,
				Action: wasmBuild,
			},
			{
				Name:      "check",
				Usage:     "load a module as the daemon would, and describe it",
				ArgsUsage: "FILE",
				Flags:     moduleFlags,
				Action:    wasmCheck,
			},
			{
				Name:      "bench",
				Usage:     "measure a module on messages from standard input",
				ArgsUsage: "FILE",
				Description: "Each line of standard input is a payload. Time and fuel a message are printed, for calls with one message\n" +
					"and, if the module takes them, with 64; then the memory that it has.\n\n" +
					"Example: filterd wasm bench filter.wasm < messages.ndjson",
				Flags: append(slices.Clone(moduleFlags),
					channelFlag("the `CHANNEL` that the module sees"),
					&cli.DurationFlag{Name: "for", Value: time.Second, Usage: "how long to measure each way of calling, as a `DURATION`"},
				),
				Action: wasmBench,
			},
		},
	}
}

// loadModule loads a module in a runtime of its own, which what it returns
// closes.
func loadModule(c *cli.Context, file string) (*wasmfilter.Module, func(), error) {
	code, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, usage("%v", err)
	}
	logger := slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: slog.LevelWarn}))
	runtime, err := wasmfilter.NewRuntime(c.Context, wasmfilter.RuntimeConfig{Workers: 1, Logger: logger})
	if err != nil {
		return nil, nil, err
	}
	closeModule := func() { _ = runtime.Close(context.WithoutCancel(c.Context)) }
	config := wasmfilter.ModuleConfig{
		Name:    strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)),
		Code:    code,
		Publish: []string{"*"},
		KV:      "memory",
		Fuel:    c.Int64("fuel"),
	}
	if c.IsSet("config") {
		config.Config = []byte(c.String("config"))
	}
	module, err := runtime.Load(c.Context, config)
	if err != nil {
		closeModule()
		return nil, nil, usage("%s: %v", file, err)
	}
	return module, closeModule, nil
}

// moduleArgument returns the one argument of a command.
func moduleArgument(c *cli.Context) (string, error) {
	if c.NArg() != 1 {
		return "", usage("wasm %s takes a module's file\nRun 'filterd wasm %s --help' for usage", c.Command.Name, c.Command.Name)
	}
	return c.Args().First(), nil
}

// A measurement is what bench prints of one way of calling.
type measurement struct {
	Batch          int     `json:"batch"`
	NsPerMessage   float64 `json:"ns_per_message"`
	FuelPerMessage float64 `json:"fuel_per_message"`
	Errors         uint64  `json:"errors"`
	Messages       uint64  `json:"messages"`
	Memory         int64   `json:"memory"` // of the instance, in bytes
}

func wasmBench(c *cli.Context) error {
	file, err := moduleArgument(c)
	if err != nil {
		return err
	}
	if c.Duration("for") <= 0 {
		return usage("--for %v: want more than 0", c.Duration("for"))
	}
	var messages []*filterd.Message
	t := newTally(c)
	err = eachLine(c.Context, c.App.Reader, t, func(n int, line []byte) error {
		m := (&filterd.Message{Channel: c.String("channel"), Payload: line}).Clone()
		if err := (*filterd.Registry)(nil).Check(m); err != nil {
			t.invalid(n, err)
			return nil
		}
		messages = append(messages, m)
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(messages) == 0:
		return usage("wasm bench needs messages on standard input, one payload a line")
	}
	module, closeModule, err := loadModule(c, file)
	if err != nil {
		return err
	}
	defer closeModule()
	sizes := []int{1}
	if module.Info().Batch {
		sizes = append(sizes, 64)
	}
	for _, size := range sizes {
		r := measureModule(c.Context, module, messages, size, c.Duration("for"))
		if asJSON(c) {
			if err := printJSON(c.App.Writer, r); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(c.App.Writer, "batches of %d: %.0f ns a message, %.0f fuel a message, %d messages, %d errors\n", r.Batch, r.NsPerMessage, r.FuelPerMessage, r.Messages, r.Errors)
	}
	if !asJSON(c) {
		fmt.Fprintf(c.App.Writer, "memory: %s, limit %s\n", bytesText(module.Stats().Memory), bytesText(module.Info().MemoryLimit))
	}
	if t.Invalid > 0 {
		return &exitError{code: exitFailed}
	}
	return c.Context.Err()
}

// measureModule calls a module for a while, with that many messages at once.
func measureModule(ctx context.Context, module *wasmfilter.Module, messages []*filterd.Message, size int, duration time.Duration) measurement {
	projection := filterd.NewProjection(module.Paths())
	runner := module.Bind(projection.Slots(module.Paths()))
	batch := make([]*filterd.Message, size)
	results := make([]filterd.StageResult, size)
	for _, m := range messages {
		m.Bind(projection)
	}
	for i := range batch {
		batch[i] = messages[i%len(messages)]
	}
	before := module.Stats()
	r := measurement{Batch: size}
	next := size % len(messages)
	start := time.Now()
	for time.Since(start) < duration && ctx.Err() == nil {
		for range 100 { // between looks at the clock
			clear(results)
			runner.Run(ctx, batch, results)
			for i := range batch {
				batch[i] = messages[next]
				next = (next + 1) % len(messages)
				if results[i].Err != nil {
					r.Errors++
				}
			}
			r.Messages += uint64(size)
		}
	}
	elapsed := time.Since(start)
	r.NsPerMessage = float64(elapsed.Nanoseconds()) / float64(r.Messages)
	after := module.Stats()
	r.FuelPerMessage = float64(after.Fuel-before.Fuel) / float64(r.Messages)
	r.Memory = after.Memory
	return r
}
