package listener

import "time"

// Lag returns how far the listener is behind: all rows that were committed longer ago than that have been delivered. It is up to Look
// (1 s) while the listener sleeps, and grows while new rows are being read, and while PostgreSQL is away.
func (s *Stats) Lag() time.Duration {
	current := s.current.Load()
	if current == nil {
		return 0
	}
	return time.Since(*current)
}

// isCurrent takes note that all rows have been delivered that were committed before some time.
func (s *Stats) isCurrent(at time.Time) { s.current.Store(&at) }

// heedLag takes notice, after a page, of whether a fetch has read to its end. It warns if the fetch takes longer than LagLimit: rows that
// are large, or costly to read, keep all later rows waiting.
func (s *session) heedLag(began time.Time, more bool) {
	if !more {
		s.Stats.isCurrent(began)
		if s.isLagging {
			s.isLagging = false
			s.Logger.Info("all new rows have been read")
		}
		return
	}
	if time.Since(began) < s.LagLimit || s.isWarming() {
		return
	}
	if logger, ok := s.logs.lag.Allow(s.Logger); ok {
		s.isLagging = true
		logger.Warn("reading new rows takes long: later rows wait", "lag", s.Stats.Lag().Round(time.Millisecond), "last_id", s.cursor.ID)
	}
}
