package listener

import (
	"math"
	"reflect"
	"testing"
	"time"
)

// A number that a field of a Listener cannot have means the default. Some negative numbers have a meaning.
func TestListenerAcceptsAnyNumbers(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	nan := math.NaN()
	type numbers struct {
		PollInterval, Look, Timeout, LagLimit time.Duration
		Busy, Quiet, QueueLimit               float64
		MaxData                               int64
		PageRows, PageBytes                   int
	}
	for name, tt := range map[string]struct {
		l    *Listener
		want numbers
	}{
		"zero": {&Listener{}, numbers{2 * ms, time.Second, 10 * time.Second, 5 * time.Second, 2000, 1000, 0.25, 16 << 20, 512, 1 << 20}},
		"negative": {
			&Listener{PollInterval: -1, Look: -1, Timeout: -1, LagLimit: -1, Busy: -1, Quiet: -2, QueueLimit: -1, MaxData: -1, PageRows: -1, PageBytes: -1},
			numbers{2 * ms, 1000 * time.Hour, 10 * time.Second, 5 * time.Second, -1, -2, 0.25, 16 << 20, 512, 1 << 20},
		},
		"negative, with PollOnly": {
			&Listener{PollOnly: true, PollInterval: -1},
			numbers{100 * ms, time.Second, 10 * time.Second, 5 * time.Second, 2000, 1000, 0.25, 16 << 20, 512, 1 << 20},
		},
		"not a number": {
			&Listener{Busy: nan, Quiet: nan, QueueLimit: nan},
			numbers{2 * ms, time.Second, 10 * time.Second, 5 * time.Second, 2000, 1000, 0.25, 16 << 20, 512, 1 << 20},
		},
		"a statement_timeout of less than a millisecond": {
			&Listener{Timeout: 1},
			numbers{2 * ms, time.Second, 10 * ms, 5 * time.Second, 2000, 1000, 0.25, 16 << 20, 512, 1 << 20},
		},
		"highest": {
			&Listener{PollInterval: math.MaxInt64, Timeout: math.MaxInt64, QueueLimit: 1.1},
			numbers{24 * time.Hour, time.Second, 24 * time.Hour, 5 * time.Second, 2000, 1000, 0.25, 16 << 20, 512, 1 << 20},
		},
	} {
		l := tt.l
		defaults(l)
		got := numbers{l.PollInterval, l.Look, l.Timeout, l.LagLimit, l.Busy, l.Quiet, l.QueueLimit, l.MaxData, l.PageRows, l.PageBytes}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, tt.want)
		}
	}
}
