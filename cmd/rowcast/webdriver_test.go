package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"rowcast/sql/dbtest"
)

// A driver controls a browser by WebDriver commands, one at a time. It sends them to Firefox by Marionette, which needs
// no other program, and to WebKitGTK by HTTP.
type driver struct {
	mu   sync.Mutex
	send func(ctx context.Context, command driverCommand, parameters any) (json.RawMessage, error)
	// mouseless is true for WebKitGTK. Without a window manager, its driver does not answer commands that use the mouse.
	mouseless bool
	first     string // the handle of the tab that the browser opens when it starts; this tab stays open
	current   string // the handle of the tab for which the browser executes commands, or "" if no tab was selected
}

// A driverCommand is a command of WebDriver: its name in Marionette, and its method and path over HTTP.
type driverCommand struct{ name, method, path string }

var (
	newSession     = driverCommand{"NewSession", http.MethodPost, ""}
	deleteSession  = driverCommand{"DeleteSession", http.MethodDelete, ""}
	newWindow      = driverCommand{"NewWindow", http.MethodPost, "/window/new"}
	switchWindow   = driverCommand{"SwitchToWindow", http.MethodPost, "/window"}
	windowHandle   = driverCommand{"GetWindowHandle", http.MethodGet, "/window"}
	closeWindow    = driverCommand{"CloseWindow", http.MethodDelete, "/window"}
	navigateTo     = driverCommand{"Navigate", http.MethodPost, "/url"}
	performActions = driverCommand{"PerformActions", http.MethodPost, "/actions"}
	executeScript  = driverCommand{"ExecuteScript", http.MethodPost, "/execute/sync"}
)

type object map[string]any

// A driverTab is a tab of a browser that a driver controls.
type driverTab struct {
	driver *driver
	handle string
}

// open opens a tab.
func (d *driver) open(ctx context.Context) (*driverTab, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.first == "" {
		answer, err := d.execute(ctx, windowHandle, object{})
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(answer, &d.first); err != nil {
			return nil, err
		}
	}
	if err := d.choose(ctx, d.first); err != nil { // WebDriver opens a tab only from an open tab, and the last one may be closed
		return nil, err
	}
	answer, err := d.execute(ctx, newWindow, object{"type": "tab"})
	if err != nil {
		return nil, err
	}
	var tab struct{ Handle string }
	err = json.Unmarshal(answer, &tab)
	return &driverTab{d, tab.Handle}, err
}

// choose selects the tab for the next commands.
func (d *driver) choose(ctx context.Context, handle string) error {
	if d.current == handle {
		return nil
	}
	_, err := d.execute(ctx, switchWindow, object{"handle": handle, "focus": false})
	if err == nil {
		d.current = handle
	}
	return err
}

// execute returns the value of the answer to a command. The caller holds the lock, so the time limit does not include
// the commands of other tests.
func (d *driver) execute(ctx context.Context, command driverCommand, parameters any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, browserLimit)
	defer cancel()
	answer, err := d.send(ctx, command, parameters)
	var wrapped struct{ Value json.RawMessage }
	if json.Unmarshal(answer, &wrapped) == nil && wrapped.Value != nil {
		answer = wrapped.Value // Marionette returns some values in an object
	}
	return answer, err
}

// run executes a command in the tab. It returns the value of the answer.
func (t *driverTab) run(ctx context.Context, command driverCommand, parameters any) (json.RawMessage, error) {
	t.driver.mu.Lock()
	defer t.driver.mu.Unlock()
	if err := t.driver.choose(ctx, t.handle); err != nil {
		return nil, err
	}
	answer, err := t.driver.execute(ctx, command, parameters)
	if command == closeWindow {
		t.driver.current = ""
	}
	return answer, err
}

// evaluate returns a JSON string that contains the JSON of the value of an expression, or null if the value has none.
func (t *driverTab) evaluate(ctx context.Context, expression string) (json.RawMessage, error) {
	return t.run(ctx, executeScript, object{"script": "return JSON.stringify((" + expression + ")) ?? null", "args": []any{}})
}

func (t *driverTab) navigate(ctx context.Context, url string) error {
	_, err := t.run(ctx, navigateTo, object{"url": url})
	return err
}

// driverKeys has the character with which WebDriver names each key.
var driverKeys = map[string]string{
	kb.Tab: "\uE004", kb.Enter: "\uE007", kb.Escape: "\uE00C", kb.End: "\uE010", kb.ArrowUp: "\uE013", kb.ArrowDown: "\uE015", kb.Delete: "\uE017",
}

// press shows the tab, and presses keys in it.
func (t *driverTab) press(ctx context.Context, keys ...string) error {
	var actions []object
	for _, key := range keys {
		actions = append(actions, object{"type": "keyDown", "value": driverKeys[key]}, object{"type": "keyUp", "value": driverKeys[key]})
	}
	return t.perform(ctx, object{"type": "key", "id": "keyboard", "actions": actions})
}

// click shows the tab, and clicks with the mouse at a point of its window.
func (t *driverTab) click(ctx context.Context, x, y float64) error {
	return t.perform(ctx, object{"type": "pointer", "id": "mouse", "actions": []object{
		{"type": "pointerMove", "x": int(x), "y": int(y)}, {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0},
	}})
}

// perform shows the tab, and performs the actions of an input device in it.
func (t *driverTab) perform(ctx context.Context, device object) error {
	t.driver.mu.Lock()
	defer t.driver.mu.Unlock()
	if _, err := t.driver.execute(ctx, switchWindow, object{"handle": t.handle, "focus": true}); err != nil {
		return err
	}
	t.driver.current = t.handle
	if err := t.awaitFocus(ctx); err != nil {
		return err
	}
	_, err := t.driver.execute(ctx, performActions, object{"actions": []object{device}})
	return err
}

// awaitFocus waits until the page has the focus, so that it receives the keys. A browser may show a tab only some time
// after it has answered the command.
func (t *driverTab) awaitFocus(ctx context.Context) error {
	for deadline := time.Now().Add(browserLimit); ; time.Sleep(20 * time.Millisecond) {
		late := time.Now().After(deadline)
		answer, err := t.driver.execute(ctx, executeScript, object{"script": "window.focus(); return document.hasFocus()", "args": []any{}})
		if err != nil || string(answer) == "true" {
			return err
		}
		if late {
			return fmt.Errorf("the page has not got the focus within %v", browserLimit)
		}
	}
}

func (t *driverTab) close(ctx context.Context) error {
	_, err := t.run(ctx, closeWindow, object{})
	return err
}

// driveFirefox starts a Firefox that ends with the test.
func driveFirefox(t *testing.T) browser {
	t.Helper()
	program, home := newFirefox(t, `user_pref("marionette.port", 0);`)
	startInBrowser(t, home, nil, program, "--headless", "--no-remote", "--marionette", "--profile", home, "about:blank")
	var port []byte
	waitWithin(t, startLimit, "the port of Firefox's Marionette", func() (found bool) {
		port, _ = os.ReadFile(filepath.Join(home, "MarionetteActivePort"))
		return len(port) > 0
	})
	conn, err := net.Dial("tcp", "127.0.0.1:"+strings.TrimSpace(string(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	_ = conn.SetDeadline(time.Now().Add(startLimit)) // for the greeting; each command sets its own limit
	m := &marionette{conn: conn, from: bufio.NewReader(conn)}
	if _, err := m.read(); err != nil { // the greeting
		t.Fatal(err)
	}
	if _, err := m.send(ctx, newSession, object{"acceptInsecureCerts": true}); err != nil {
		t.Fatal(err)
	}
	return browser{driver: &driver{send: m.send}}
}

// A marionette is a connection to Firefox. A message is the length of a JSON text, a colon, and the text.
type marionette struct {
	conn net.Conn
	from *bufio.Reader
	last int   // the number of the last command
	lost error // the first error of the connection; after it, an answer could belong to another command
}

func (m *marionette) read() (message []byte, err error) {
	var length int
	if _, err := fmt.Fscanf(m.from, "%d:", &length); err != nil {
		return nil, err
	}
	message = make([]byte, length)
	_, err = io.ReadFull(m.from, message)
	return message, err
}

func (m *marionette) send(ctx context.Context, command driverCommand, parameters any) (json.RawMessage, error) {
	answer, err := m.exchange(ctx, command, parameters)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command.name, err)
	}
	var fields [4]json.RawMessage // 1 for an answer, the number of the command, the error, and the result
	if err := json.Unmarshal(answer, &fields); err != nil {
		return nil, fmt.Errorf("%s: cannot read the answer %s: %w", command.name, answer, err)
	}
	var failure *struct{ Error, Message string }
	if err := json.Unmarshal(fields[2], &failure); err != nil {
		return nil, fmt.Errorf("%s: cannot read the error in the answer %s: %w", command.name, answer, err)
	}
	if failure != nil {
		return nil, fmt.Errorf("%s: %s: %s", command.name, failure.Error, failure.Message)
	}
	return fields[3], nil
}

// The error of a command says what Firefox has answered, also if the answer cannot be read.
func TestMarionetteErrors(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		`[1, 1, {"error": "no such window", "message": "closed"}, null]`: "NewWindow: no such window: closed",
		`[1, 1, "broken", null]`: `NewWindow: cannot read the error in the answer [1, 1, "broken", null]: json: `,
		`[1, 1]`:                 `NewWindow: cannot read the error in the answer [1, 1]: `,
		`{}`:                     `NewWindow: cannot read the answer {}: json: `,
	} {
		from := bufio.NewReader(strings.NewReader(fmt.Sprintf("%d:%s", len(answer), answer)))
		conn, firefox := net.Pipe()
		t.Cleanup(func() { conn.Close() })
		go func() { _, _ = io.Copy(io.Discard, firefox) }()
		m := &marionette{conn: conn, from: from}
		if _, err := m.send(t.Context(), newWindow, object{}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("the answer %s: got %v, want %s", answer, err, want)
		}
	}
}

// exchange sends a command, and returns the answer.
func (m *marionette) exchange(ctx context.Context, command driverCommand, parameters any) (answer []byte, err error) {
	if m.lost != nil {
		return nil, fmt.Errorf("the connection was lost: %w", m.lost)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = m.conn.SetDeadline(deadline)
	}
	m.last++
	text, err := json.Marshal([]any{0, m.last, "WebDriver:" + command.name, parameters})
	if err != nil {
		return nil, err
	}
	if _, m.lost = fmt.Fprintf(m.conn, "%d:%s", len(text), text); m.lost == nil {
		answer, m.lost = m.read()
	}
	return answer, m.lost
}

// driveWebKit starts MiniBrowser, a test browser of WebKitGTK, which ends with the test.
func driveWebKit(t *testing.T) browser {
	t.Helper()
	minibrowser := findMiniBrowser(t)
	program := dbtest.Program(t, "webkit2gtk-driver", "WebKitWebDriver")
	home := dbtest.Home(t)
	address := fmt.Sprintf("127.0.0.1:%d", dbtest.Port(t))
	_, port, _ := net.SplitHostPort(address)
	startInBrowser(t, home, startDisplay(t), program, "--host=127.0.0.1", "--port="+port)
	waitWithin(t, startLimit, "WebKitWebDriver to listen", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	session := "http://" + address + "/session"
	send := func(ctx context.Context, command driverCommand, parameters any) (json.RawMessage, error) {
		return sendToDriver(ctx, command, session, parameters)
	}
	options := object{"binary": minibrowser, "args": []string{"--automation"}}
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	answer, err := send(ctx, newSession, object{"capabilities": object{"alwaysMatch": object{"acceptInsecureCerts": true, "webkitgtk:browserOptions": options}}})
	if err != nil {
		t.Fatal(err)
	}
	var started struct{ SessionID string }
	if err := json.Unmarshal(answer, &started); err != nil {
		t.Fatal(err)
	}
	session += "/" + started.SessionID
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), browserLimit)
		defer cancel()
		_, _ = send(ctx, deleteSession, nil) // ends the browser
	})
	return browser{driver: &driver{send: send, mouseless: true}}
}

// sendToDriver sends a command to a WebDriver server, and returns the value of its answer.
func sendToDriver(ctx context.Context, command driverCommand, session string, parameters any) (json.RawMessage, error) {
	var body io.Reader = http.NoBody
	if command.method == http.MethodPost {
		text, err := json.Marshal(parameters)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, command.method, session+command.path, body)
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct{ Value json.RawMessage }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("%s: %w", command.name, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", command.name, response.Status, answer.Value)
	}
	return answer.Value, nil
}
