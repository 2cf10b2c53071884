package main_test

import "testing"

// TestOtherBrowsers runs rowcast.js and <rowcast-inbox> in Firefox and WebKitGTK. The tests of each engine share a
// browser. Only the tests that press keys have a Firefox of their own: while other tests open tabs, Firefox may leave
// the focus outside of the page.
func TestOtherBrowsers(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) browser{"Firefox": driveFirefox, "WebKitGTK": driveWebKit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t)
			t.Run("rowcast.js", func(t *testing.T) { testScript(t, b) })
			t.Run("tabs", func(t *testing.T) { testTabs(t, b) })
			t.Run("a proxy that buffers", func(t *testing.T) { testBuffered(t, b) })
			t.Run("journeys", func(t *testing.T) { testJourneys(t, b) })
			t.Run("inbox element", func(t *testing.T) { testInboxElement(t, b) })
			t.Run("inbox keys", func(t *testing.T) {
				t.Parallel()
				keys := b
				if name == "Firefox" {
					keys = start(t)
				}
				testInboxKeys(t, keys)
			})
		})
	}
}
