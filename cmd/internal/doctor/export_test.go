package doctor

import (
	"context"
	"log/slog"
)

// Release returns the verdict about a release of PostgreSQL, and how to fix it.
func Release(version string, major, minor int) (verdict, fix string) {
	f := release(version, major, minor)
	return string(f.verdict), f.fix
}

// RequiredStandbys is requiredStandbys.
var RequiredStandbys = requiredStandbys

// NewFirstError returns a firstError that calls end.
func NewFirstError(end context.CancelCauseFunc) slog.Handler { return &firstError{end: end} }
