package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"rowcast/cmd/internal/private"
)

// printDemo says where the demo is and what to try.
func printDemo(w io.Writer, page string, database *demoDatabase) {
	bold, quiet, plain := "", "", ""
	if private.IsTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		bold, quiet, plain = "\x1b[1m", "\x1b[2m", "\x1b[0m"
	}
	fmt.Fprintf(w, "\n%srowcast demo%s\n\n", bold, plain)
	fmt.Fprintf(w, "  Alice   %s%s/?uid=alice%s\n", bold, page, plain)
	fmt.Fprintf(w, "  Bob     %s%s/?uid=bob%s\n\n", bold, page, plain)
	for _, command := range database.commands() {
		fmt.Fprintf(w, "  %s%s:%s\n\n    %s\n\n", quiet, command.Title, plain, strings.ReplaceAll(command.Text, "\n", "\n    "))
	}
	fmt.Fprintf(w, "  %s%s%s\n", quiet, database.about, plain)
	fmt.Fprintf(w, "  %sCtrl-C stops the demo.%s\n\n", quiet, plain)
}
