package main_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"rowcast/sql/dbtest"
)

// TestBrowser runs the tests that need a real browser. All of them use the same browser process.
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
	t.Run("service worker", func(t *testing.T) { testServiceWorker(t, chromium) })
	t.Run("demo", func(t *testing.T) { testDemoPage(t, chromium) })
	t.Run("example", func(t *testing.T) { testExample(t, chromium) })
	t.Run("README", func(t *testing.T) { testFlask(t, chromium) })
	t.Run("rolling restart", func(t *testing.T) { testRollingRestart(t, chromium) })
}

// browserLimit is the time limit of an action or a wait in the browser.
const browserLimit = 20 * time.Second

// foreignHost is a host name that the browser resolves to this machine.
const foreignHost = "foreign.example"

// A browser is a running Chromium, or one of its profiles.
type browser struct{ ctx context.Context }

// startBrowser starts a headless Chromium that ends with the test.
func startBrowser(t *testing.T) browser {
	t.Helper()
	program := dbtest.Program(t, "chromium", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium")
	allocator, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, // Chromium's sandbox does not work as root and in most containers, and only the pages of the tests are loaded
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP "+foreignHost+" 127.0.0.1"),
	)...)
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
	return browser{ctx}
}

// profile returns a new profile of the browser, with its own cookies and storage.
func (b browser) profile(t *testing.T) browser {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return browser{ctx}
}

// open opens a page in a new tab.
func (b browser) open(t *testing.T, url string) page {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	p := page{t: t, ctx: ctx}
	p.do(chromedp.Navigate(url))
	return p
}

// A page is a tab of the browser.
type page struct {
	t   *testing.T
	ctx context.Context
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

// await waits until a JavaScript expression is true.
func (p page) await(expression string) {
	p.t.Helper()
	err := p.try(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(
		`new Promise((resolve, reject) => {
			const check = () => { try { (%s) ? resolve() : setTimeout(check, 10) } catch (error) { reject(error) } };
			check();
		})`, expression), chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("wait until %s: %v", expression, err)
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
	ctx, cancel := context.WithTimeout(p.ctx, browserLimit)
	defer cancel()
	got, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return got
}
