package main

import (
	"fmt"

	"rowcast/stream"
)

type clientCmd struct {
	Name bool `help:"Print a file name that contains the version of the browser client, instead of its text."`
}

// Help is shown by rowcast client --help.
func (clientCmd) Help() string {
	return "rowcast client > rowcast.js writes the browser client to a file, so that a page can load it from the page's own server. " +
		"A hub serves it at /rowcast.js, and at a path with the name that --name prints. Browsers cache the second one for ever."
}

// Run prints the browser client.
func (c *clientCmd) Run(console console) error {
	if c.Name {
		_, err := fmt.Fprintln(console.out, stream.ScriptName())
		return err
	}
	_, err := console.out.Write(stream.Script)
	return err
}
