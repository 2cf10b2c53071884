package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// An inboxClient sends requests for an inbox. Its headers, or the query of a request, name the user.
type inboxClient struct {
	*testing.T
	url     string   // of the hub
	headers []string // name, value, name, value
}

// inboxHub starts a hub on a new database. The hub serves inboxes and accepts tokens.
func inboxHub(t *testing.T, args ...string) (h *hub, dsn string) {
	t.Helper()
	dsn = dbtest.Inbox(t)
	return startHub(t, dsn, append([]string{"--inbox", "--jwt-secret", secret}, args...)...), dsn
}

// inboxOf returns a client with a token of a user in some groups.
func (h *hub) inboxOf(t *testing.T, user string, groups ...string) inboxClient {
	t.Helper()
	return inboxClient{t, h.url, bearer(signed(t, jwt.MapClaims{"sub": user, "groups": groups}))}
}

// An inboxItem is a row in the list.
type inboxItem struct {
	ID, Recipient, Event string
	Data                 json.RawMessage
	Seen, Read           bool
}

// An inboxAnswer has the keys of the answers and of the events that the tests use. Each kind of answer or event has
// only some of them.
type inboxAnswer struct {
	Items          []inboxItem
	Before, Cursor string
	Unseen, Unread int
	Version        int
	Undo           string
	Undone         bool

	Action string
	IDs    []string
	UpTo   string `json:"up_to"`
}

// list requests a page of the list. The query is empty, or begins with "?".
func (c inboxClient) list(query string) inboxAnswer {
	c.Helper()
	return c.decode(ask(c, http.MethodGet, c.url+"/inbox"+query, c.headers...))
}

// change posts a body to /inbox/ACTION, and returns the answer.
func (c inboxClient) change(action, body string) inboxAnswer {
	c.Helper()
	return c.decode(c.post(action, body))
}

// mark changes the state of rows.
func (c inboxClient) mark(action string, ids ...string) inboxAnswer {
	c.Helper()
	body, err := json.Marshal(map[string][]string{"ids": ids})
	if err != nil {
		c.Fatal(err)
	}
	return c.change(action, string(body))
}

// all changes the state of all rows that a cursor has seen.
func (c inboxClient) all(action, cursor string) inboxAnswer {
	c.Helper()
	return c.change(action, fmt.Sprintf(`{"all": %q}`, cursor))
}

func (c inboxClient) post(action, body string) answer {
	c.Helper()
	return send(c, http.MethodPost, c.url+"/inbox/"+action, body, append([]string{"Content-Type", "application/json"}, c.headers...)...)
}

func (c inboxClient) decode(got answer) (a inboxAnswer) {
	c.Helper()
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/json" || got.header.Get("Cache-Control") != "no-store" {
		c.Fatalf("got %d, %q, %s, want 200, application/json and no-store", got.status, got.header, got.body)
	}
	if err := json.Unmarshal([]byte(got.body), &a); err != nil {
		c.Fatalf("%s: %v", got.body, err)
	}
	return a
}

// decodeEvent returns the data of an event.
func decodeEvent(t *testing.T, event sse.Event) (a inboxAnswer) {
	t.Helper()
	if err := json.Unmarshal([]byte(event.Data), &a); err != nil {
		t.Fatalf("%s: %v", event.Data, err)
	}
	return a
}

// state describes the rows of a list, the newest row first. A row is its data, followed by "read" if the row is read,
// or by "seen" if the row is only seen.
func (a inboxAnswer) state() string {
	var all []string
	for _, item := range a.Items {
		text := strings.Trim(string(item.Data), `"`)
		for name, is := range map[string]bool{"seen": item.Seen && !item.Read, "read": item.Read} {
			if is {
				text += " " + name
			}
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// idOf returns the id of the row with the given data.
func (a inboxAnswer) idOf(t *testing.T, data string) string {
	t.Helper()
	at := slices.IndexFunc(a.Items, func(item inboxItem) bool { return strings.Trim(string(item.Data), `"`) == data })
	if at < 0 {
		t.Fatalf("the list has no row %q: %s", data, a.state())
	}
	return a.Items[at].ID
}

// waitForLocks waits until n statements of the hub that read or change inboxes wait for a lock.
func waitForLocks(t *testing.T, dsn, n string) {
	t.Helper()
	const count = `SELECT count(*)::text FROM pg_stat_activity
		WHERE application_name = 'rowcast inbox' AND datname = current_database() AND wait_event_type = 'Lock'`
	waitFor(t, n+" statements that wait for a lock", func() bool { return valueOf(t, dsn, count) == n })
}
