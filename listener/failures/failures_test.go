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

// A failure is remembered from the first one on until the operation succeeds, or until nobody has tried it for long.
func TestRecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r failures.Record
		began := time.Now()
		r.Succeeded(failures.Replay) // which has not failed
		r.Failed(failures.Replay, errors.New("first"))
		time.Sleep(time.Minute)
		r.Failed(failures.Replay, errors.New("second"))
		got := r.Of(failures.Replay)
		if got.Total != 2 || !got.Since.Equal(began) || !got.Last.Equal(began.Add(time.Minute)) || got.Err.Error() != "second" {
			t.Errorf("got %+v", got)
		}
		if all := r.Failing(); !slices.Equal(all, []failures.Operation{failures.Replay}) {
			t.Errorf("failing are %v", all)
		}
		r.Succeeded(failures.Replay)
		if all := r.Failing(); len(all) > 0 || r.Of(failures.Replay).Total != 2 {
			t.Errorf("failing are %v after success", all)
		}
		r.Failed(failures.Replay, errors.New("third"))
		if got := r.Of(failures.Replay); !got.Since.Equal(began.Add(time.Minute)) {
			t.Errorf("failing since %v, want since the failure after the success", got.Since)
		}
		time.Sleep(failures.Remembered)
		if all := r.Failing(); len(all) > 0 {
			t.Errorf("failing are %v, which nobody has tried for long", all)
		}
	})
}

// Warnings of an operation do not fill the log. Those of another are not left out for that.
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
		if said := log.String(); strings.Count(said, "cannot replay") != 5 || !strings.Contains(said, "cannot delete\" rows=3 error=no") {
			t.Errorf("the log is\n%s", said)
		}
		if got := r.Of(failures.Replay).Total; got != 1000 {
			t.Errorf("%d failures, want 1000", got)
		}
	})
}
