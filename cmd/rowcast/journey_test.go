package main_test

import (
	"fmt"
	"maps"
	"syscall"
	"testing"

	"github.com/chromedp/cdproto/network"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"rowcast/sql/dbtest"
)

// A passage is a case of testJourneys: the JavaScript that makes the source, what happens while rows are inserted, and
// more arguments of the hub.
type passage struct {
	source  string
	happens func(*journey)
	args    []string
}

const (
	sameOrigin  = `new RowcastSource("/events?uid=alice")`
	otherOrigin = `new RowcastSource("HUB/events?uid=alice")`
	withToken   = `new RowcastSource("HUB/events", { token })`
	withCookie  = `new RowcastSource("HUB/events", { withCredentials: true })`
	withPersist = `new RowcastSource("/events?uid=alice", { persist: "cursor" })`
)

// testJourneys shows, in a real browser and with a real hub, that rowcast.js does not lose or repeat a row when
// something happens to the page, the hub or the network.
func testJourneys(t *testing.T, b browser) {
	t.Parallel()
	passages := map[string]passage{
		"the hub is killed":                     {sameOrigin, killHub, nil},
		"the hub is stopped":                    {sameOrigin, stopHub, nil},
		"a hub of another origin is killed":     {otherOrigin, killHub, nil},
		"streams are cut within rows":           {`new RowcastSource("CUTTER/events?uid=alice")`, cutStreams, nil},
		"the page is loaded again":              {withPersist, reload, nil},
		"the page has two sources":              {withTwoSources, hearTwice, nil},
		"loading is stopped":                    {sameOrigin, stopLoading, nil},
		"a service worker passes the stream on": {"await underServiceWorker()", killHub, nil},
		"the stream is in a module worker":      {"inWorker()", killHub, nil},
		"tokens expire":                         {withToken, renewTokens, nil},
		"the user signs out and in again":       {withToken, signOut, nil},
		"a user with a cookie is disconnected":  {withCookie, disconnectUser, nil},
	}
	if b.driver != nil {
		passages["the user goes back to the page"] = passage{withPersist, goBackOrReload, nil}
	} else {
		maps.Copy(passages, map[string]passage{
			"the clock is wrong":                    {withClock, setClock, []string{"--heartbeat", "10s"}},
			"the network is away for a while":       {sameOrigin, loseNetwork, nil},
			"the tab is frozen":                     {sameOrigin, freeze, nil},
			"the page is in the back/forward cache": {sameOrigin, goBack, nil},
		})
		t.Run("the page is in the background", testBackground)
	}
	t.Run("nginx", func(t *testing.T) { testJourneysBehindNginx(t, b) })
	for name, test := range passages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJourney(t, dbtest.Database(t), test.source, test.args...)
			j.page = b.profile(t).open(t, j.site.URL)
			j.page.await("window.source?.state === 'open'")
			j.travel(test.happens)
		})
	}
	t.Run("another user signs in in another tab", func(t *testing.T) {
		t.Parallel()
		testUsers(t, b)
	})
	t.Run("PostgreSQL is killed", func(t *testing.T) {
		t.Parallel()
		testPostgresKilled(t, b)
	})
}

func killHub(j *journey) { restartHub(j, syscall.SIGKILL) }

func stopHub(j *journey) { restartHub(j, syscall.SIGTERM) }

func restartHub(j *journey, signal syscall.Signal) {
	j.hears()
	j.hub.stop(signal)
	j.misses()
	j.hub.start()
	j.hears()
}

func cutStreams(j *journey) {
	j.hears()
	if err := j.cutter.cutAll(3*waitLimit, 0, 23); err != nil {
		j.t.Error(err)
	}
	j.hears()
}

func disconnectUser(j *journey) {
	j.hears()
	runSQL(j.t, j.dsn, `SELECT pg_notify('rowcast.disconnect', 'alice')`)
	j.page.await("states.includes('retrying end')")
	j.hears()
}

func loseNetwork(j *journey) {
	j.hears()
	setOffline(j.page, true)
	j.site.CloseClientConnections() // because open streams continue when Chromium is set offline
	j.page.await("!navigator.onLine && states.at(-1) === 'retrying network'")
	j.misses()
	setOffline(j.page, false)
	j.hears()
}

func setOffline(p page, offline bool) {
	p.t.Helper()
	conditions := []*network.Conditions{{DownloadThroughput: -1, UploadThroughput: -1, Offline: offline}}
	if _, err := chromedp.Call(p.ctx, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{MatchedNetworkConditions: conditions}); err != nil {
		p.t.Fatal(err)
	}
	if _, err := chromedp.Call(p.ctx, network.OverrideNetworkState, network.OverrideNetworkStateParams{Offline: offline, DownloadThroughput: -1, UploadThroughput: -1}); err != nil {
		p.t.Fatal(err)
	}
}

func freeze(j *journey) {
	j.hears()
	setLifecycle(j.page, cdppage.SetWebLifecycleStateStateFrozen)
	waitWithin(j.t, browserLimit, "the end of the stream", func() bool { return metric(j.t, "http://"+j.hub.address, "rowcast_streams") == 0 })
	j.misses()
	setLifecycle(j.page, cdppage.SetWebLifecycleStateStateActive)
	j.hears()
}

func setLifecycle(p page, state cdppage.SetWebLifecycleStateState) {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, cdppage.SetWebLifecycleState, cdppage.SetWebLifecycleStateParams{State: state}); err != nil {
		p.t.Fatal(err)
	}
}

func goBack(j *journey) {
	j.hears()
	j.page.navigate(j.site.URL + "/other")
	waitWithin(j.t, browserLimit, "the end of the stream", func() bool { return metric(j.t, "http://"+j.hub.address, "rowcast_streams") == 0 })
	j.misses()
	value[bool](j.page, "history.back(), true") // chromedp.NavigateBack waits for a load event, which a cached page does not have
	j.page.await("window.shown?.at(-1) === true")
	j.hears()
}

// goBackOrReload goes to another page and back. The browser may have kept the first page, or loads it again.
func goBackOrReload(j *journey) {
	j.hears()
	j.page.navigate(j.site.URL + "/other")
	waitWithin(j.t, browserLimit, "the end of the stream", func() bool { return metric(j.t, "http://"+j.hub.address, "rowcast_streams") == 0 })
	j.misses()
	value[bool](j.page, "history.back(), true")
	j.page.await("window.shown?.length > 0 && source.state === 'open'")
	j.t.Logf("the page was kept: %v", value[bool](j.page, "shown.at(-1)"))
	j.hears()
}

func reload(j *journey) {
	j.hears()
	j.page.navigate(j.site.URL + "/other")
	j.misses()
	j.page.navigate(j.site.URL)
	j.hears()
}

func stopLoading(j *journey) {
	j.hears()
	value[bool](j.page, "window.stop(), true")
	j.page.await("states.length >= 2")
	j.hears()
}

func renewTokens(j *journey) {
	j.page.await("whys?.filter((why) => why === 'expired').length >= 3")
	if got := value[[]string](j.page, "states"); fmt.Sprint(got) != "[open]" {
		j.t.Errorf("the states were %q, want only open", got)
	}
}

func signOut(j *journey) {
	j.hears()
	j.signedOut.Store(true)
	runSQL(j.t, j.dsn, `SELECT pg_notify('rowcast.disconnect', 'alice')`)
	j.page.await("source.state === 'signed-out'")
	j.misses()
	j.signedOut.Store(false)
	value[bool](j.page, "source.open(), true")
	j.hears()
}

// testPostgresKilled kills the server of the database. The stream of the page stays open, and the state of the source
// becomes "delayed".
func testPostgresKilled(t *testing.T, b browser) {
	server := dbtest.Cluster(t)
	dsn := server.DSN("postgres")
	if code, _, stderr := run(t, nil, "migrate", "--database-url", dsn); code != 0 {
		t.Fatalf("migrate: got exit code %d, %s, want 0", code, stderr)
	}
	j := newJourney(t, dsn, `new RowcastSource("/events?uid=alice")`, "--heartbeat", "10s")
	j.page = b.profile(t).open(t, j.site.URL)
	j.page.await("window.source?.state === 'open'")
	const row = `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '%d')`
	runSQL(t, dsn, fmt.Sprintf(row, 1))
	j.page.await("heard.length === 1")
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	j.page.await("source.state === 'delayed'")
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	runSQL(t, dsn, fmt.Sprintf(row, 2))
	j.page.await("source.state === 'open' && heard.length === 2")
	if got, want := fmt.Sprint(value[[]int](j.page, "heard"), value[[]string](j.page, "states")), "[1 2] [open delayed database open]"; got != want {
		t.Errorf("got the rows and the states %s, want %s", got, want)
	}
}
