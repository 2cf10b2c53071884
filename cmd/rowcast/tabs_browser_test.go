package main_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"rowcast/sql/dbtest"
)

// testTabs shows that the tabs of a browser share one stream, and that each tab receives each row once, whatever
// happens to the tab that holds the stream. The random schedules in stream/web/test cover what rarely happens in a
// browser.
func testTabs(t *testing.T, b browser) {
	t.Parallel()
	type group struct {
		tabs    int
		happens func(*tabs)
		args    []string // more arguments of the hub
	}
	groups := map[string]group{
		"the first tab is closed":                             {3, closeFirst, nil},
		"another page is loaded in the first tab":             {3, leaveFirst, nil},
		"a tab is opened in a burst":                          {2, openTab, nil},
		"the tab that holds the stream changes several times": {3, handOver, nil},
	}
	if b.driver != nil {
		groups["seven tabs are open over HTTP/1.1"] = group{7, leaveLast, nil}
	} else {
		maps.Copy(groups, map[string]group{
			"the first tab crashes":                      {3, crashFirst, nil},
			"the first tab is frozen":                    {3, freezeFirst, nil},
			"the first tab is in a long loop":            {3, loopFirst, []string{"--heartbeat", "1s"}},
			"the first tab is in the back/forward cache": {3, goBackFirst, nil},
			"twelve tabs are open over HTTP/1.1":         {12, loadPage, nil},
		})
	}
	for name, test := range groups {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTabs(t, b, `new RowcastSource("/events?uid=alice", { lastEventId: "CURSOR" })`, test.tabs, test.args...)
			s.travel(test.happens)
		})
	}
	if b.driver != nil {
		return
	}
	t.Run("a page names its user", func(t *testing.T) {
		t.Parallel()
		s := newTabs(t, b, `new RowcastSource("/events?uid=alice", { lastEventId: "CURSOR", user: "alice" })`, 2)
		s.travel(openTab)
		if got := metric(t, "http://"+s.hub.address, "rowcast_streams_opened_total"); got != 1 {
			t.Errorf("%g streams were opened, want 1", got)
		}
	})
	t.Run("each tab has its own stream without sharing", func(t *testing.T) {
		t.Parallel()
		s := newTabs(t, b, `new RowcastSource("/events?uid=alice", { lastEventId: "CURSOR", shared: false })`, 3)
		s.wantStreams(3)
	})
}

// tabs are several tabs of one profile. Each shows the page of a journey. If the tabs share a stream, the first tab
// holds it in the beginning.
type tabs struct {
	*journey
	profile browser
	open    []page
	streams float64 // the number of streams for which travel waits
}

// newTabs opens n tabs. By default, the heartbeat interval is so long that a tab opens a stream because of silence only
// after more time than the constant soon. args are more arguments of the hub.
func newTabs(t *testing.T, b browser, source string, n int, args ...string) *tabs {
	t.Helper()
	args = append([]string{"--heartbeat", "5s"}, args...)
	s := &tabs{journey: newJourney(t, dbtest.Database(t), source, args...), profile: b.profile(t), streams: 1}
	for range n {
		s.add()
	}
	return s
}

func (s *tabs) add() {
	s.t.Helper()
	p := s.profile.open(s.t, s.site.URL)
	p.await("window.source?.state === 'open'")
	s.open = append(s.open, p)
}

// wantStreams waits until the hub has n streams.
func (s *tabs) wantStreams(n float64) {
	s.t.Helper()
	waitWithin(s.t, browserLimit, fmt.Sprintf("%g streams", n), func() bool { return metric(s.t, "http://"+s.hub.address, "rowcast_streams") == n })
}

// travel inserts rows while happens runs, and checks that each tab that is still open receives each row once and in
// order.
func (s *tabs) travel(happens func(*tabs)) {
	s.t.Helper()
	s.wantStreams(s.streams)
	ctx, stop := context.WithCancel(s.t.Context())
	rows := 0
	var writing sync.WaitGroup
	writing.Go(func() { rows = s.write(ctx) })
	defer writing.Wait()
	defer stop()
	s.hear(s.open...)
	happens(s)
	s.hear(s.open...)
	s.wantStreams(s.streams)
	stop()
	writing.Wait()
	for i, p := range s.open {
		p.await("heard.at(-1) === 0")
		s.check(fmt.Sprintf("tab %d", i+1), value[[]int](p, "heard"), rows)
		if resets := value[[]string](p, "resets"); len(resets) > 0 {
			s.t.Errorf("tab %d was reset: %q", i+1, resets)
		}
	}
}

// hear waits until each of the pages has received 10 more rows.
func (s *tabs) hear(pages ...page) {
	s.t.Helper()
	for _, p := range pages {
		p.await(fmt.Sprintf("heard.length >= %d", value[int](p, "heard.length")+10))
	}
}

// replaced calls end, which ends the first tab's stream, and checks that another tab opens a stream within the limit.
func (s *tabs) replaced(limit time.Duration, end func(page)) {
	s.t.Helper()
	hub := "http://" + s.hub.address
	opened := metric(s.t, hub, "rowcast_streams_opened_total")
	end(s.open[0])
	began := time.Now()
	waitWithin(s.t, browserLimit, "a new stream", func() bool { return metric(s.t, hub, "rowcast_streams_opened_total") > opened })
	if took := time.Since(began); took > limit {
		s.t.Errorf("another tab opened a stream after %v, want at most %v", took, limit)
	}
	s.hear(s.open[1:]...)
}

// soon limits the time from the release of the first tab's Web Lock until another tab opens a stream. On an idle
// machine, this takes less than 0.5 s. Without the release, a tab would notice the silence after 12.5 s: 2.5 heartbeat
// intervals.
const soon = 10 * time.Second

func closeFirst(s *tabs) {
	s.replaced(soon, closeTab)
	s.open = s.open[1:]
}

func leaveFirst(s *tabs) {
	s.replaced(soon, func(p page) { p.navigate(s.site.URL + "/other") })
	s.open = s.open[1:]
}

func crashFirst(s *tabs) {
	s.replaced(soon, func(p page) { go func() { _ = p.try(chromedp.Navigate("chrome://crash")) }() })
	s.open = s.open[1:]
}

func freezeFirst(s *tabs) {
	s.replaced(soon, func(p page) { setLifecycle(p, cdppage.SetWebLifecycleStateStateFrozen) })
	s.misses()
	setLifecycle(s.open[0], cdppage.SetWebLifecycleStateStateActive)
}

func loopFirst(s *tabs) {
	// The heartbeat interval is 1 s, so the tab is replaced within 4.5 s: after 2.5 intervals and a wait of up to 2 s. The
	// loop takes longer, because at its end the tab itself would open a stream. A slow machine may need 3.5 s more.
	const loop = 20 * time.Second
	s.replaced(8*time.Second, func(p page) {
		value[bool](p, fmt.Sprintf(`setTimeout(() => { for (const end = Date.now() + %d; Date.now() < end;); }), true`, loop.Milliseconds()))
	})
}

func goBackFirst(s *tabs) {
	s.replaced(soon, func(p page) { p.navigate(s.site.URL + "/other") })
	s.misses()
	value[bool](s.open[0], "history.back(), true")
	s.open[0].await("window.shown?.at(-1) === true")
}

func openTab(s *tabs) { s.add() }

func handOver(s *tabs) {
	times := 10
	if s.profile.driver != nil {
		times = 3 // the commands of a driver are slow
	}
	for range times {
		s.replaced(soon, closeTab)
		s.open = s.open[1:]
		s.add()
	}
}

// loadPage loads another page in the last tab and goes back. Browsers open at most six connections to a host over
// HTTP/1.1, so the page could not load if each tab had a stream of its own.
func loadPage(s *tabs) {
	last := s.open[len(s.open)-1]
	last.navigate(s.site.URL + "/other")
	value[bool](last, "history.back(), true")
	last.await("window.shown?.at(-1) === true")
}

// leaveLast loads another page in the last tab.
func leaveLast(s *tabs) {
	last := len(s.open) - 1
	s.open[last].navigate(s.site.URL + "/other")
	s.open = s.open[:last]
}

func closeTab(p page) {
	p.t.Helper()
	if err := p.close(); err != nil {
		p.t.Fatal(err)
	}
}
