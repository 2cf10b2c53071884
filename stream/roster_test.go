package stream_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"rowcast/listener/feed"
)

// Streams, live and joining, end in a mixed order. After each end, the number of streams that an event reaches is the
// number of live streams that the recipient still has.
func TestStreamsEndInAnyOrder(t *testing.T) {
	t.Parallel()
	const streams = 300
	f := newFeed(t)
	type connected struct {
		group string
		leave func()
		live  bool
	}
	var all []connected
	want := map[string]int{}
	for i := range streams {
		s := connected{group: fmt.Sprint("group ", i%7), live: i%5 != 0}
		s.leave = f.hub.Connect(s.live, "all", s.group, fmt.Sprint("user ", i))
		all = append(all, s)
	}
	count := func(what string, n int) {
		t.Helper()
		before := f.hub.Stats.Sent.Load()
		f.hub.Send(feed.Message{Recipient: what, Data: []byte("1")})
		if got := f.hub.Stats.Sent.Load() - before; got != int64(n) {
			t.Fatalf("an event for %q reached %d streams, want %d", what, got, n)
		}
	}
	for _, s := range all {
		if s.live {
			want[s.group]++
			want["all"]++
		}
	}
	for i := range all {
		s := all[(i*127)%streams] // ends each stream once, in a mixed order
		s.leave()
		if s.live {
			want[s.group]--
			want["all"]--
		}
		count(everyone, want["all"])
		for recipient, n := range want {
			count(recipient, n)
		}
	}
	if got := f.hub.Stats.Streams.Load(); got != 0 {
		t.Errorf("%d streams are left, want none", got)
	}
}

// Ending a stream of a large group costs about as much as ending a stream of a small group. The test compares the
// quickest of 20 batches, because a batch can be interrupted by the garbage collector or by another process. It is not
// parallel for the same reason.
func TestEndingAStreamOfALargeGroupIsCheap(t *testing.T) {
	each := func(streams int) time.Duration {
		f := newFeed(t)
		leave := gatherInGroup(f, streams)
		const batches, size = 20, 100
		var took []time.Duration
		for i := range batches {
			began := time.Now()
			for j := range size {
				leave[((i*size+j)*7919)%streams]() // ends no stream twice, because 7,919 and streams have no common factor
			}
			took = append(took, time.Since(began)/size)
		}
		return slices.Min(took)
	}
	small, large := each(4_000), each(100_000)
	t.Logf("ending a stream takes %v in a group of 4,000 streams, and %v in a group of 100,000", small, large)
	if large > 8*small && large > 15*time.Microsecond { // a scan of the large group would take 50 µs
		t.Errorf("ending a stream takes %v in a large group and %v in a small group, want at most eight times as long in the large group, or at most 15 µs", large, small)
	}
}

func cpuOf(function func()) time.Duration {
	before := used()
	function()
	return used() - before
}

// gatherInGroup connects streams of one group, each for a different user.
func gatherInGroup(f *fakeFeed, streams int) (leave []func()) {
	for i := range streams {
		leave = append(leave, f.hub.Connect(true, "everybody", fmt.Sprint("user ", i)))
	}
	return leave
}

// BenchmarkLargeGroup connects streams of one group, sends events to the group, and ends all streams. It reports the
// CPU time of each operation, which should hardly depend on the number of streams. The events are written to the null
// device.
func BenchmarkLargeGroup(b *testing.B) {
	for _, streams := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(streams), func(b *testing.B) {
			const events = 20
			var connecting, sending, ending time.Duration
			for b.Loop() {
				f := newFeed(b)
				var leave []func()
				connecting += cpuOf(func() { leave = gatherInGroup(f, streams) })
				sending += cpuOf(func() {
					for i := range events {
						f.publish("everybody", "notify", fmt.Sprint(i))
					}
				})
				ending += cpuOf(func() {
					for i := range leave {
						leave[(i*7919)%streams]() // ends no stream twice, because 7,919 and streams have no common factor
					}
				})
				if sent, open := f.hub.Stats.Sent.Load(), f.hub.Stats.Streams.Load(); sent != int64(events*streams) || open != 0 {
					b.Fatalf("sent %d events, want %d; %d streams are left, want none", sent, events*streams, open)
				}
			}
			each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(b.N*streams) }
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(each(connecting), "cpu-ns/connect")
			b.ReportMetric(each(sending)/events, "cpu-ns/delivery")
			b.ReportMetric(each(ending), "cpu-ns/disconnect")
		})
	}
}

// BenchmarkManyGroups sends events to streams that have one group or 1,000 groups. Each event is for one of these groups.
// The CPU time of a delivery should not depend on the number of groups. The events are written to the null device.
func BenchmarkManyGroups(b *testing.B) {
	for _, groups := range []int{1, 1000} {
		b.Run(fmt.Sprint(groups), func(b *testing.B) {
			const streams, events = 1000, 500
			f := newFeed(b)
			for i := range streams {
				recipients := []string{fmt.Sprint("user ", i)}
				for n := range groups {
					recipients = append(recipients, fmt.Sprint("group:", n))
				}
				defer f.hub.Connect(true, recipients...)()
			}
			runtime.GC() // the garbage of the connections does not count
			var sending time.Duration
			for b.Loop() {
				before := f.hub.Stats.Sent.Load()
				sending += cpuOf(func() {
					for i := range events {
						f.publish(fmt.Sprint("group:", i%groups), "notify", fmt.Sprint(i))
					}
				})
				if sent := f.hub.Stats.Sent.Load() - before; sent != streams*events {
					b.Fatalf("sent %d events, want %d", sent, streams*events)
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(sending.Nanoseconds())/float64(b.N*streams*events), "cpu-ns/delivery")
		})
	}
}

// A grant may name everyone as its user or as a group. The stream then receives each event for everyone once, and no
// event for another recipient.
func TestAGrantForEveryone(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c := listen(t, f.site, everyone, everyone)
	c.hello()
	f.publish(everyone, "message", "1")
	f.publish("alice", "message", "2")
	f.publish(everyone, "message", "3")
	c.wantData("1", "3")
	if n := f.hub.Disconnect("alice"); n != 0 {
		t.Errorf("ended %d streams of alice, want 0", n)
	}
}
