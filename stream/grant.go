package stream

import (
	"context"
	"slices"
	"time"
)

// A Grant says who listens to a stream, and until when. The zero Grant hears what is for everyone, for ever.
type Grant struct {
	// User is a recipient: the one person whose stream this is. Empty: nobody in particular.
	User string
	// Groups are the other recipients that the stream is for.
	Groups []string

	// Known is when this was found out, less than a minute ago, if it may have ceased to be so: a stream of somebody who has been
	// disconnected since is not opened, and its client told to come back. Zero: it was not long ago.
	Known time.Time
	// Expires is when the stream ends, and is told shortly before; zero: never.
	Expires time.Time
	// Leeway is for how long it goes on nevertheless, as the clock by which Expires was set may be slow.
	Leeway time.Duration
	// Renew, if not nil, is asked at Expires instead, in a goroutine of its own: until when the stream goes on (zero: for ever), or
	// whether it ends, which is told then. Its context ends with Run.
	Renew func(context.Context) (expires time.Time, ok bool)
}

// Recipients are the user and the groups, each once and in order.
func (g Grant) Recipients() []string {
	all := slices.DeleteFunc(append([]string{g.User}, g.Groups...), func(r string) bool { return r == "" })
	slices.Sort(all)
	return slices.Clip(slices.Compact(all))
}
