package main

import (
	"errors"
	"fmt"

	"rowcast/stream"
)

type clientCmd struct {
	Script string `arg:"" optional:"" enum:"rowcast.js,rowcast-inbox.js,rowcast-inbox-store.js" default:"rowcast.js" help:"The script: ${enum}. rowcast-inbox.js imports rowcast-inbox-store.js, which imports rowcast.js."`
	Name   bool   `help:"Print a file name that contains a hash of rowcast.js, instead of the text of a script."`
}

// Help is shown by rowcast client --help.
func (clientCmd) Help() string {
	return "rowcast client > rowcast.js writes the browser client to a file, so that a page can load it from the page's own server. " +
		"The element <rowcast-inbox> also needs rowcast client rowcast-inbox.js > rowcast-inbox.js and rowcast client rowcast-inbox-store.js > rowcast-inbox-store.js. " +
		"A hub serves the browser client at /rowcast.js, and also at the name that --name prints, which browsers may cache for a year."
}

// Validate refuses --name for a script that has no name with a hash.
func (c *clientCmd) Validate() error {
	if c.Name && c.Script != "rowcast.js" {
		return errors.New("--name: only rowcast.js has a name with a hash, because the scripts import each other by their plain names")
	}
	return nil
}

// Run prints the script or, with --name, the file name.
func (c *clientCmd) Run(console console) error {
	if c.Name {
		_, err := fmt.Fprintln(console.out, stream.ScriptName())
		return err
	}
	script := map[string][]byte{"rowcast.js": stream.Script, "rowcast-inbox.js": stream.InboxScript, "rowcast-inbox-store.js": stream.InboxStoreScript}[c.Script]
	_, err := console.out.Write(script)
	return err
}
