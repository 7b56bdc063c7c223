package main

import (
	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd/config"
)

func schemaCommand() *cli.Command {
	return &cli.Command{
		Name:  "schema",
		Usage: "print the JSON Schema of the config file, for editors",
		Flags: []cli.Flag{outputFlag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			_, err := c.App.Writer.Write(config.Schema())
			return err
		},
	}
}
