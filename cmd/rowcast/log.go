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
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: withUnit}))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

// withUnit writes a duration as 140ms, as in text: JSON's handler would write a number of nanoseconds, and not say so.
func withUnit(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}
