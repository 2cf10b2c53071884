package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// screenshotsVariable is the environment variable that names the directory for the screenshots.
const screenshotsVariable = "TEST_ROWCAST_SCREENSHOTS"

// testScreenshots writes screenshots of the demo, for people to look at. If TEST_ROWCAST_SCREENSHOTS is not set, it
// writes none, and only checks the titles and the numbers of the notifications.
func testScreenshots(t *testing.T, u *demoUser) {
	insert := func(recipient, age, data string) {
		u.execute(fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, event, data, created_at) VALUES ('%s', 'notify', '%s', now() - interval '%s')`, recipient, data, age))
	}
	insert("alice", "9 days", `{"msg": "Welcome to the team, Alice"}`)
	insert("*", "1 day", `{"msg": "Maintenance tonight at 22:00"}`)
	insert("bob", "5 hours", `{"title": "Alice mentioned you", "body": "Can you look at the new invoices before Friday?", "url": "/#invoices"}`)
	insert("alice", "40 minutes", `{"title": "Bob commented on your proposal", "body": "Looks good to me. I would only change the title of the second section, because it repeats the first.", "url": "/#proposal"}`)
	insert("alice", "3 minutes", `{"msg": "Carol liked your post"}`)
	u.execute(`INSERT INTO rowcast_demo.orders (customer, product) VALUES ('alice', 'a bicycle'), ('bob', 'a lamp')`)
	p := u.open()
	awaitTitles(p, "alice", "You ordered a bicycle", "Carol liked your post", "Bob commented on your proposal", "Maintenance tonight at 22:00", "Welcome to the team, Alice")
	value[bool](p, `store("alice").read([...store("alice").items.slice(2)].map(({ id }) => id)), true`)
	p.await(`store("alice").unreadCount === 2`)
	u.execute(insertFor("'bob'", "Dave shared a folder with you"))
	p.await(`store("bob").items.length === 4`)
	p.do(chromedp.EmulateViewport(1200, 760))
	u.shoot(p, "readme")
	desktop, phone := chromedp.EmulateViewport(1200, 900, chromedp.EmulateScale(2)), chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2), chromedp.EmulateMobile)
	dark := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}}
	p.do(desktop)
	u.shoot(p, "desktop")
	value[bool](p, `bell("alice").open = true`)
	u.shoot(p, "desktop-open")
	p.do(phone)
	u.shoot(p, "phone-open")
	value[bool](p, `bell("alice").open = false, true`)
	u.shoot(p, "phone")
	if _, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, dark); err != nil {
		t.Fatal(err)
	}
	p.do(desktop)
	u.shoot(p, "dark")
	value[bool](p, `document.querySelectorAll("rowcast-inbox").forEach((element) => { element.lang = "zh"; }), bell("bob").open = true`)
	u.shoot(p, "dark-chinese-open")
	value[bool](p, `bell("bob").open = false, document.documentElement.dir = "rtl", bell("bob").open = true`)
	u.shoot(p, "dark-right-to-left")
}

// shoot writes a screenshot of the page to the file name.png, if TEST_ROWCAST_SCREENSHOTS is set. First it waits until
// the page is drawn and no animation runs.
func (u *demoUser) shoot(p page, name string) {
	u.t.Helper()
	dir := os.Getenv(screenshotsVariable)
	if dir == "" {
		return
	}
	value[bool](p, `window.framed = false, requestAnimationFrame(() => requestAnimationFrame(() => { framed = true; })), true`)
	p.await(`framed && [document, ...[...document.querySelectorAll("rowcast-inbox")].map((element) => element.shadowRoot)].every((root) =>
		root.getAnimations().every((animation) => animation.playState !== "running"))`)
	image, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), image, 0o600)
	}
	if err != nil {
		u.t.Fatal(err)
	}
}
