package main_test

import (
	"fmt"
	"reflect"
	"slices"
	"syscall"
	"testing"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"

	"rowcast/sql/dbtest"
)

// withTwoSources is the JavaScript for a page with two sources that have the same URL. Its value is the first source.
const withTwoSources = `(() => {
	const [first, second] = [1, 2].map(() => new RowcastSource("/events?uid=alice"));
	window.twice = [];
	second.onmessage = ({ data }) => twice.push(data);
	return first; })()`

func hearTwice(j *journey) {
	killHub(j)
	waitWithin(j.t, browserLimit, "one stream", func() bool { return metric(j.t, "http://"+j.hub.address, "rowcast_streams") == 1 })
	j.page.await("heard.length === twice.length")
	// Rows are inserted all the time, so one of the sources can be ahead by now.
	lists := value[[2][]int](j.page, "[heard, twice]")
	both := min(len(lists[0]), len(lists[1]))
	if !slices.Equal(lists[0][:both], lists[1][:both]) {
		j.t.Errorf("the first source of the page received the rows %v, and the second one %v, want one of the lists to begin with the other", lists[0], lists[1])
	}
}

// withClock is the JavaScript for a page whose clock is fast by "ahead" milliseconds, at first by one year. Its value
// is the source.
const withClock = `(() => {
	const { now } = Date;
	window.ahead = 365 * 24 * 3600 * 1000;
	Date.now = () => now() + ahead;
	return new RowcastSource("/events?uid=alice"); })()`

// setClock sets the clock back while the stream is open, then ahead again, and back while the page waits for its next
// attempt.
func setClock(j *journey) {
	const tenDays = "10 * 24 * 3600 * 1000" // short enough for setTimeout, which does not wait if the time is longer than about 25 days
	j.hears()
	value[bool](j.page, "ahead -= "+tenDays+", true")
	j.hears()
	if got := value[[]string](j.page, "states"); fmt.Sprint(got) != "[open]" {
		j.t.Errorf("the states were %q, want only open", got)
	}
	value[bool](j.page, "ahead += "+tenDays+", true")
	j.hears()
	j.hub.stop(syscall.SIGKILL)
	j.page.await("states.filter((state) => state.startsWith('retrying')).length >= 2")
	value[bool](j.page, "ahead -= "+tenDays+", true")
	j.misses()
	j.hub.start()
	value[bool](j.page, "dispatchEvent(new Event('online'))")
	j.hears()
}

// testUsers signs in as Alice in one tab of a profile, and then as Bob in another tab. The first tab then has the
// cookie of Bob, but must not receive the rows of Bob.
func testUsers(t *testing.T, b browser) {
	j := newJourney(t, dbtest.Database(t), `new RowcastSource("HUB/events", { withCredentials: true, user: new URLSearchParams(location.search).get("user") })`)
	profile := b.profile(t)
	signIn := func(user string) page {
		p := profile.open(t, j.site.URL+"/?user="+user)
		p.await("window.source?.state === 'open'")
		return p
	}
	number := 0
	insert := func() {
		number++
		const statement = `INSERT INTO rowcast.notifications (recipient, data) SELECT name, to_jsonb(name || %d) FROM unnest('{alice,bob}'::text[]) AS name`
		runSQL(t, j.dsn, fmt.Sprintf(statement, number))
	}
	want := func(p page, user string, rows int) {
		t.Helper()
		p.await(fmt.Sprintf("heard.length >= %d", rows))
		var texts []string
		for n := range rows {
			texts = append(texts, fmt.Sprint(user, n+1))
		}
		if got := value[[]string](p, "heard"); !reflect.DeepEqual(got, texts) {
			t.Errorf("the tab of %s received %q, want %q", user, got, texts)
		}
	}
	first := signIn("alice")
	insert()
	want(first, "alice", 1)
	second := signIn("bob")
	value[bool](second, "heard.push('bob1'), true") // this row was inserted before the tab was opened
	insert()
	want(first, "alice", 2)
	want(second, "bob", 2)
	runSQL(t, j.dsn, `SELECT pg_notify('rowcast.disconnect', 'alice')`)
	first.await("source.state === 'signed-out'")
	insert()
	want(second, "bob", 3)
	want(first, "alice", 2)
	third := signIn("alice")
	value[bool](first, "source.open(), true")
	want(first, "alice", 3)
	insert()
	want(first, "alice", 4)
	want(second, "bob", 4)
	third.await("heard.length === 1")
}

// testBackground has a page in the background. After a time, which is one second in this test, Chromium runs the timers
// of such a page only once a minute.
func testBackground(t *testing.T) {
	t.Parallel()
	chromium := startBrowser(t,
		chromedp.Flag("disable-background-timer-throttling", false),
		chromedp.Flag("disable-backgrounding-occluded-windows", false),
		chromedp.Flag("disable-renderer-backgrounding", false),
		chromedp.Flag("enable-features", "IntensiveWakeUpThrottling:grace_period_seconds/1"),
	)
	j := newJourney(t, dbtest.Database(t), sameOrigin, "--heartbeat", "10s")
	j.page = chromium.open(t, j.site.URL)
	j.page.await("window.source?.state === 'open'")
	j.travel(func(j *journey) {
		setWindow(j.page, cdpbrowser.WindowStateMinimized)
		j.page.await("document.hidden")
		value[bool](j.page, "window.tick = performance.now(), setInterval(() => tick = performance.now(), 100), true")
		j.page.await("performance.now() > tick + 4000") // until the timers run once a minute; before that, they run once a second
		j.hears()
		if got := value[[]string](j.page, "states"); fmt.Sprint(got) != "[open]" {
			t.Errorf("the states were %q, want only open", got)
		}
		j.hub.stop(syscall.SIGKILL)
		j.misses()
		j.hub.start()
		setWindow(j.page, cdpbrowser.WindowStateNormal)
		j.hears()
	})
}

// setWindow minimizes the window of a page, which hides the page, or shows the window again.
func setWindow(p page, state cdpbrowser.WindowState) {
	p.t.Helper()
	window, err := chromedp.Call(p.ctx, cdpbrowser.GetWindowForTarget, cdpbrowser.GetWindowForTargetParams{})
	if err == nil {
		_, err = chromedp.Call(p.ctx, cdpbrowser.SetWindowBounds, cdpbrowser.SetWindowBoundsParams{
			WindowID: window.WindowID, Bounds: &cdpbrowser.Bounds{WindowState: state},
		})
	}
	if err != nil {
		p.t.Fatal(err)
	}
}
