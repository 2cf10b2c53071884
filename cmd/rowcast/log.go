package main

import (
	"io"
	"log/slog"
)

// logFlags are those of commands that run on.
type logFlags struct {
	LogFormat string `enum:"text,json" default:"text" group:"log" placeholder:"FORMAT" help:"How to log, to stderr: text or json (default ${default})."`
}

func (f logFlags) logger(w io.Writer) *slog.Logger {
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}
