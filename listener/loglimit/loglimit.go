// Package loglimit bounds how often a kind of log line is written. It is for log lines that clients, rows or roles of
// the database can cause, because otherwise they could fill a disk.
package loglimit

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// A Limit bounds one kind of log line. Lines that come too often are left out, and the next line says how many were
// left out. The zero value is ready to use. The fields must not be changed after the first use. A Limit is safe for
// concurrent use.
type Limit struct {
	// Every is the time between two lines once Burst is used up. The default is 10 s.
	Every time.Duration
	// Burst is the number of lines that may come at once. The default is 5.
	Burst int

	once    sync.Once
	limiter *rate.Limiter
	leftOut atomic.Int64
}

// Allow reports whether a line may be written now. If so, it returns the logger for the line. This is logger, with the
// attribute left_out if lines were left out since the last line. If the line may not be written, Allow counts it as
// left out.
//
//	if logger, ok := limit.Allow(l.Logger); ok {
//		logger.Warn("…")
//	}
func (l *Limit) Allow(logger *slog.Logger) (_ *slog.Logger, ok bool) {
	l.once.Do(l.init)
	if !l.limiter.Allow() {
		l.leftOut.Add(1)
		return nil, false
	}
	if n := l.leftOut.Swap(0); n > 0 {
		return logger.With("left_out", n), true
	}
	return logger, true
}

func (l *Limit) init() {
	if l.Every == 0 {
		l.Every = 10 * time.Second
	}
	if l.Burst == 0 {
		l.Burst = 5
	}
	l.limiter = rate.NewLimiter(rate.Every(l.Every), l.Burst)
}
