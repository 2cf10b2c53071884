package doctor_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"rowcast/cmd/internal/doctor"
)

// The first error that a logger logs ends the context, even if the logger has attributes or a group.
func TestFirstErrorEndsTheContext(t *testing.T) {
	t.Parallel()
	first := errors.New("first")
	for name, derived := range map[string]func(*slog.Logger) *slog.Logger{
		"the logger itself": func(l *slog.Logger) *slog.Logger { return l },
		"with attributes":   func(l *slog.Logger) *slog.Logger { return l.With("a", 1) },
		"with a group":      func(l *slog.Logger) *slog.Logger { return l.WithGroup("g") },
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		logger := derived(slog.New(doctor.NewFirstError(cancel)))
		logger.Warn("failed", "error", first)
		logger.Warn("failed", "error", errors.New("second"))
		if got := context.Cause(ctx); !errors.Is(got, first) {
			t.Errorf("%s: the context has ended with %v, want %v", name, got, first)
		}
	}
}
