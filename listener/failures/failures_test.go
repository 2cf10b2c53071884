package failures_test

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/listener/failures"
)

// An operation that the hub repeats by itself counts as failing from its first failure until it succeeds.
func TestOperationFailsUntilItSucceeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r failures.Record
		began := time.Now()
		r.Succeeded(failures.Retention) // no effect: the operation has not failed
		r.Failed(failures.Retention, errors.New("first"))
		time.Sleep(time.Minute)
		r.Failed(failures.Retention, errors.New("second"))
		wantFailing(t, &r, failures.Retention)
		got := r.Of(failures.Retention)
		if got.Failures != 2 || !got.Since.Equal(began) || !got.Last.Equal(began.Add(time.Minute)) || got.Err.Error() != "second" {
			t.Errorf("got %+v, want two failures, a minute apart, and the error \"second\"", got)
		}
		time.Sleep(time.Hour)
		wantFailing(t, &r, failures.Retention)
		r.Succeeded(failures.Retention)
		wantFailing(t, &r)
		r.Failed(failures.Retention, errors.New("third"))
		if got := r.Of(failures.Retention); got.Failures != 1 || got.Total != 3 || time.Since(got.Since) != 0 {
			t.Errorf("got %+v, want a Total of 3, and 1 in Failures, for the failure that was recorded now", got)
		}
	})
}

// An operation that is attempted only on demand counts as failing until Kept has passed since its last failure.
func TestFailureEndsWithoutAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r failures.Record
		for range 2 {
			r.Failed(failures.Replay, errors.New("no"))
			time.Sleep(failures.Kept - 1)
			wantFailing(t, &r, failures.Replay)
			time.Sleep(time.Nanosecond)
			wantFailing(t, &r)
		}
		if got := r.Of(failures.Replay); got.Failures != 1 || got.Total != 2 || time.Since(got.Since) != failures.Kept {
			t.Errorf("got %+v, want a Total of 2, and 1 in Failures, for the last failure, %v ago", got, failures.Kept)
		}
	})
}

// An operation that fails for one stream counts as failing, although it succeeds for many others. It counts as failing
// until Recovering has passed since its last failure.
func TestSuccessOfOthersHidesNoFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r failures.Record
		began := time.Now()
		for range 10 { // one stream fails every 7 s, and other streams succeed every second
			r.Failed(failures.Replay, errors.New("no"))
			for range 7 {
				time.Sleep(time.Second)
				r.Succeeded(failures.Replay)
				wantFailing(t, &r, failures.Replay)
			}
		}
		if got := r.Of(failures.Replay); got.Failures != 10 || !got.Since.Equal(began) {
			t.Errorf("got %+v, want ten failures since the beginning", got)
		}
		time.Sleep(failures.Recovering - 7*time.Second - 1) // the last failure was 7 s ago
		wantFailing(t, &r, failures.Replay)
		time.Sleep(time.Nanosecond)
		wantFailing(t, &r)
	})
}

func wantFailing(t *testing.T, r *failures.Record, want ...failures.Operation) {
	t.Helper()
	got := slices.DeleteFunc(slices.Clone(failures.All), func(of failures.Operation) bool { return !r.Of(of).Failing() })
	if !slices.Equal(got, want) {
		t.Errorf("got failing operations %v, want %v", got, want)
	}
}

// Many warnings of one operation do not fill the log. They do not suppress the warnings of another operation.
func TestWarningsAreLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r failures.Record
		var log bytes.Buffer
		to := slog.New(slog.NewTextHandler(&log, nil))
		for range 1000 {
			r.Warn(to, failures.Replay, errors.New("no"), "cannot replay")
		}
		r.Warn(to, failures.Retention, errors.New("no"), "cannot delete", "rows", 3)
		if written := log.String(); strings.Count(written, "cannot replay") != 5 || !strings.Contains(written, "cannot delete\" rows=3 error=no") {
			t.Errorf("got the log\n%s\nwant 5 lines with cannot replay, and one with cannot delete, rows=3 and error=no", written)
		}
		if got := r.Of(failures.Replay).Total; got != 1000 {
			t.Errorf("got %d failures, want 1000", got)
		}
	})
}
