package listener

import "time"

// Lag returns how far the listener is behind. All rows that were committed after Run began, and longer ago than Lag,
// have been delivered. Lag is up to about Look (1 s) while the listener sleeps. It grows while new rows are being read,
// and while PostgreSQL is unreachable. It is 0 before Run has begun.
func (s *Stats) Lag() time.Duration {
	current := s.current.Load()
	if current == nil {
		return 0
	}
	return time.Since(*current)
}

// setCurrent makes Lag count from the time at.
func (s *Stats) setCurrent(at time.Time) { s.current.Store(&at) }

// observeLag is called after each page. If the fetch has no more pages, it records that the listener is up to date. If
// the fetch has more pages and has taken longer than LagLimit, it warns: rows that are large, or slow to read, delay
// all later rows. It does not warn while recent rows are being read (Warm).
func (s *session) observeLag(began time.Time, more bool) {
	if !more {
		s.Stats.setCurrent(began)
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
		logger.Warn("reading new rows takes long: later rows are delayed", "lag", s.Stats.Lag().Round(time.Millisecond), "last_id", s.cursor.ID)
	}
}
