package loglimit_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/listener/loglimit"
)

func TestLimitCountsWhatItLeavesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		to := slog.New(slog.NewTextHandler(&log, nil))
		limit := loglimit.Limit{Every: time.Minute, Burst: 2}
		for _, step := range []struct {
			wait         time.Duration
			asked, lines int
			leftOut      string
		}{
			{0, 5, 2, ""},
			{time.Minute, 3, 1, "left_out=3"},
			{time.Hour, 2, 2, "left_out=2"},
			{time.Hour, 1, 1, ""},
		} {
			time.Sleep(step.wait)
			log.Reset()
			for range step.asked {
				if logger, ok := limit.Allow(to); ok {
					logger.Warn("it failed")
				}
			}
			got := log.String()
			if strings.Count(got, "\n") != step.lines || !strings.Contains(got, step.leftOut) ||
				step.leftOut == "" && strings.Contains(got, "left_out") {
				t.Errorf("%+v: got the log %q, want %d lines and the attribute %q (none if empty)", step, got, step.lines, step.leftOut)
			}
		}
	})
}

// The zero value allows five lines at once, and then one line every ten seconds.
func TestZeroLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var limit loglimit.Limit
		lines := 0
		for range 100 {
			for range 1000 {
				if _, ok := limit.Allow(slog.New(slog.DiscardHandler)); ok {
					lines++
				}
			}
			time.Sleep(time.Second)
		}
		if lines != 5+9 {
			t.Errorf("%d lines in 100 s, want 14", lines)
		}
	})
}
