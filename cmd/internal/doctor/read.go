package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"rowcast/listener"
	"rowcast/listener/feed"
)

// reading reads new rows as a hub does, once. It polls, and so takes no lock from a hub.
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
		err = fmt.Errorf("a hub cannot read here: %w", context.Cause(ctx))
	}
	return fine("new rows can be read"), err
}

// firstError is a log that takes of a listener only why its first session has ended.
type firstError struct {
	slog.Handler
	once sync.Once
	end  context.CancelCauseFunc
}

// Enabled reports whether a line can be about an error.
func (*firstError) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle looks for an error in a line.
func (f *firstError) Handle(_ context.Context, line slog.Record) error {
	line.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			f.once.Do(func() { f.end(err) })
		}
		return true
	})
	return nil
}

// WithAttrs returns the same log, as the attributes have no error.
func (f *firstError) WithAttrs([]slog.Attr) slog.Handler { return f }
