package main

import (
	"context"
	"io"
)

// Run is the whole program, except for signals, the exit and the limits of the process.
func Run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	return run(ctx, args, getenv, console{out: stdout, err: stderr})
}
