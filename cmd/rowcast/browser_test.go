package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/memory"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"rowcast/sql/dbtest"
)

// TestBrowser runs tests in Chromium. They share a browser, except the test of a page in the background, which starts a
// browser of its own.
func TestBrowser(t *testing.T) {
	t.Parallel()
	chromium := startBrowser(t)
	t.Run("rowcast.js", func(t *testing.T) { testScript(t, chromium) })
	t.Run("tabs", func(t *testing.T) { testTabs(t, chromium) })
	t.Run("a proxy that buffers", func(t *testing.T) { testBuffered(t, chromium) })
	t.Run("journeys", func(t *testing.T) { testJourneys(t, chromium) })
	t.Run("cookies", func(t *testing.T) { testCookies(t, chromium) })
	t.Run("other origins", func(t *testing.T) { testOtherOrigins(t, chromium) })
	t.Run("inbox element", func(t *testing.T) { testInboxElement(t, chromium) })
	t.Run("inbox keys", func(t *testing.T) {
		t.Parallel()
		testInboxKeys(t, chromium)
	})
	t.Run("service worker", func(t *testing.T) { testServiceWorker(t, chromium) })
	t.Run("demo", func(t *testing.T) { testDemoPage(t, chromium) })
	t.Run("example", func(t *testing.T) { testExample(t, chromium) })
	t.Run("README", func(t *testing.T) { testFlask(t, chromium) })
	t.Run("rolling restart", func(t *testing.T) { testRollingRestart(t, chromium) })
}

const (
	// browserLimit is the time limit of an action or a wait in the browser.
	browserLimit = time.Minute
	// startLimit is the time limit of the start of a driven browser.
	startLimit = 3 * time.Minute
)

// foreignHost is a host name that Chromium resolves to this machine.
const foreignHost = "foreign.example"

// A browser is a running Chromium or one of its profiles, or another browser that a driver controls.
type browser struct {
	ctx    context.Context
	driver *driver
}

// startBrowser starts a headless Chromium that ends with the test. more has further options.
func startBrowser(t *testing.T, more ...chromedp.ExecAllocatorOption) browser {
	t.Helper()
	program := dbtest.Program(t, "chromium", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium")
	allocator, stop := chromedp.NewExecAllocator(context.Background(), slices.Concat(chromedp.DefaultExecAllocatorOptions[:], []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(program),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, // Chromium's sandbox does not work as root and in most containers, and only the pages of the tests are loaded
		chromedp.DisableGPU,
		chromedp.WSURLReadTimeout(startLimit), // by default, chromedp waits 20 s for the start
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP "+foreignHost+" 127.0.0.1"),
	}, more)...)
	ctx, _ := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		limited, cancel := context.WithTimeout(ctx, browserLimit)
		defer cancel()
		_ = chromedp.Cancel(limited) // ends the browser and waits for it, so that it writes no file while the test removes its directory
		stop()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", program, err)
	}
	// If memory becomes short, Chromium must not remove pages from the back/forward cache.
	suppressed := memory.SetPressureNotificationsSuppressedParams{Suppressed: true}
	if _, err := chromedp.Call(ctx, memory.SetPressureNotificationsSuppressed, suppressed); err != nil {
		t.Fatal(err)
	}
	return browser{ctx: ctx}
}

// profile returns a new profile of Chromium, with its own cookies and storage. A browser that a driver controls has
// only one profile, so profile returns that browser.
func (b browser) profile(t *testing.T) browser {
	t.Helper()
	if b.driver != nil {
		return b
	}
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return browser{ctx: ctx}
}

// open opens a page in a new tab.
func (b browser) open(t *testing.T, url string) page {
	t.Helper()
	if b.driver != nil {
		return b.openDriven(t, url)
	}
	ctx, cancel := chromedp.NewContext(b.ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	p := page{t: t, ctx: ctx}
	p.navigate(url)
	return p
}

func (b browser) openDriven(t *testing.T, url string) page {
	t.Helper()
	tab, err := b.driver.open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	p := page{t: t, ctx: context.Background(), tab: tab}
	t.Cleanup(func() { _ = p.close() })
	p.navigate(url)
	return p
}

// A page is a tab of the browser.
type page struct {
	t   *testing.T
	ctx context.Context
	tab *driverTab // nil in Chromium
}

// navigate loads a page in the tab.
func (p page) navigate(url string) {
	p.t.Helper()
	if p.tab == nil {
		p.do(chromedp.Navigate(url))
		return
	}
	if err := p.tab.navigate(p.ctx, url); err != nil {
		p.t.Fatalf("navigate to %s: %v", url, err)
	}
}

// press presses keys.
func (p page) press(keys ...string) {
	p.t.Helper()
	if p.tab == nil {
		for _, key := range keys {
			p.do(chromedp.KeyEvent(key))
		}
		return
	}
	if err := p.tab.press(p.ctx, keys...); err != nil {
		p.t.Fatal(err)
	}
}

// close closes the tab.
func (p page) close() error {
	if p.tab != nil {
		return p.tab.close(p.ctx)
	}
	ctx, cancel := context.WithTimeout(p.ctx, browserLimit)
	defer cancel()
	_, err := chromedp.Call(ctx, cdppage.Close, cdp.Empty{})
	return err
}

func (p page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := p.try(steps...); err != nil {
		p.t.Fatal(err)
	}
}

// try runs the steps, for at most browserLimit.
func (p page) try(steps ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(p.ctx, browserLimit)
	defer cancel()
	return chromedp.Do(ctx, steps...)
}

// pageReport is a JavaScript expression with values that help to find out why await has failed.
const pageReport = `({ states: window.states, resets: window.resets, heard: window.heard?.length, hidden: document.hidden })`

// await evaluates a JavaScript expression until its value is true. Another page may be loaded in the tab meanwhile.
// After browserLimit, await evaluates the expression a last time, and fails the test if the value is not true.
func (p page) await(expression string) {
	p.t.Helper()
	for deadline := time.Now().Add(browserLimit); ; time.Sleep(20 * time.Millisecond) {
		last := time.Now().After(deadline)
		so, err := evaluated[bool](p, "!!("+expression+")") // an error while another page is loaded
		if so {
			return
		}
		if last {
			page, _ := evaluated[map[string]any](p, pageReport)
			if err == nil {
				err = errors.New("the value is false")
			}
			p.t.Fatalf("waited in vain until %s is true: %v; of the page: %v", expression, err, page)
		}
	}
}

// enter is the Enter key, for fill.
const enter = "\r"

// fill replaces the text of a field.
func (p page) fill(selector, text string) {
	p.t.Helper()
	p.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("document.querySelector(%q).value = ''", selector)), chromedp.SendKeys(selector, text))
}

// value returns the value of a JavaScript expression.
func value[T any](p page, expression string) T {
	p.t.Helper()
	got, err := evaluated[T](p, expression)
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return got
}

func evaluated[T any](p page, expression string) (got T, err error) {
	if p.tab == nil {
		ctx, cancel := context.WithTimeout(p.ctx, browserLimit)
		defer cancel()
		return chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	}
	answer, err := p.tab.evaluate(p.ctx, expression)
	if err != nil {
		return got, err
	}
	var text *string
	if err := json.Unmarshal(answer, &text); err != nil || text == nil {
		return got, err
	}
	err = json.Unmarshal([]byte(*text), &got)
	return got, err
}
