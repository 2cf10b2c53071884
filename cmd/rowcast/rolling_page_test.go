package main_test

import (
	"os"
	"path/filepath"
	"testing"

	"rowcast/stream"
)

// rollingHTML is a page that records the data of its rows and its resets. It counts the streams that were opened and
// the times that the source closed for good. With the query ?plain it uses a plain EventSource, otherwise
// rowcast.js.
const rollingHTML = `<!doctype html><script type="module">
	import { RowcastSource } from "/rowcast.js";
	Object.assign(window, { heard: [], opened: 0, finals: 0, resets: [] });
	const plain = location.search === "?plain";
	const source = new (plain ? EventSource : RowcastSource)("/events?uid=alice");
	source.addEventListener("rowcast.hello", () => opened++);
	source.addEventListener("rowcast.reset", (e) => resets.push(JSON.stringify(e.data)));
	source.addEventListener("error", () => { if (source.readyState === EventSource.CLOSED) finals++; });
	source.onmessage = (e) => heard.push(plain ? JSON.parse(e.data) : e.data);
</script>`

// testRollingRestart is TestRollingRestart with the clients in several tabs of a browser.
func testRollingRestart(t *testing.T, chromium browser) {
	t.Parallel()
	c := newCast(t)
	for name, text := range map[string]string{"index.html": rollingHTML, "rowcast.js": string(stream.Script)} {
		if err := os.WriteFile(filepath.Join(c.nginx.pages, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	profile := chromium.profile(t)
	kinds := []string{"?plain", "?plain", "?rowcast.js", "?rowcast.js"}
	var pages []page
	for _, kind := range kinds {
		p := profile.open(t, c.nginx.url+"/"+kind)
		p.await("window.opened > 0")
		pages = append(pages, p)
	}
	rows := c.roll()
	counts := make(map[string]int)
	for i, p := range pages {
		p.await("heard.at(-1) === 0")
		c.check(kinds[i], value[[]int](p, "heard"), rows)
		if finals, resets := value[int](p, "finals"), value[[]string](p, "resets"); finals != 0 || len(resets) > 0 {
			t.Errorf("%s: the source closed for good %d times, want 0; the resets were %q, want none", kinds[i], finals, resets)
		}
		counts[kinds[i]] += value[int](p, "opened")
	}
	// Each hub was stopped, so each first stream has ended. At the beginning, each tab opens a stream. After that, each
	// plain tab opens a stream again, but the tabs with rowcast.js share one.
	for kind, least := range map[string]int{"?plain": 4, "?rowcast.js": 3} {
		if opened := counts[kind]; opened < least {
			t.Errorf("the tabs with %s opened %d streams, want at least %d", kind, opened, least)
		}
	}
	c.checkLog()
}
