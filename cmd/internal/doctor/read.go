package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"rowcast/listener"
	"rowcast/listener/feed"
)

// reading checks that a hub can read new rows, by reading them once. It only polls, so it does not take the park lock.
func (e *Examination) reading(ctx context.Context) (finding, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var began bool
	l := listener.Listener{
		Config:   e.Config,
		PollOnly: true,
		Logger:   slog.New(&firstError{end: cancel}),
		Deliver: func(b feed.Batch) {
			if began = began || !b.Warming; began {
				cancel(nil)
			}
		},
	}
	err := l.Run(ctx)
	if !began && err == nil {
		err = fmt.Errorf("a hub cannot read new rows: %w", context.Cause(ctx))
	}
	return ok("new rows can be read"), err
}

// firstError is a log handler. The listener logs the error that ended its session. firstError then ends a context with
// this error.
type firstError struct {
	once sync.Once
	end  context.CancelCauseFunc
}

// Enabled reports whether a line may contain an error.
func (*firstError) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle ends the context if an attribute of a log line is an error.
func (f *firstError) Handle(_ context.Context, line slog.Record) error {
	line.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			f.once.Do(func() { f.end(err) })
		}
		return true
	})
	return nil
}

// WithAttrs ignores the attributes of a logger, because the listener gives its errors to single log lines.
func (f *firstError) WithAttrs([]slog.Attr) slog.Handler { return f }

// WithGroup ignores the group, because only the types of the attributes matter.
func (f *firstError) WithGroup(string) slog.Handler { return f }
