package sql_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// A visitor calls the functions of the inbox for a user with groups.
type visitor struct {
	t      *testing.T
	conn   *pgx.Conn
	name   string
	groups []string
}

// An inboxPage is the result of rowcast.inbox().
type inboxPage struct {
	Items []struct {
		ID, Recipient, Event string
		Data                 json.RawMessage
		CreatedAt            string `json:"created_at"`
		Seen, Read           bool
		TooLarge             bool `json:"too_large"`
	}
	Before         *string
	Unseen, Unread int
	More           bool
	Version        int64
	Cursor         string
}

// An inboxChange is the result of rowcast.inbox_mark() and rowcast.inbox_undo().
type inboxChange struct {
	Version        int64
	Unseen, Unread int
	More           bool
	Undo           *string
	Undone         bool
}

// alice returns a visitor of a new database, after the first visit.
func alice(t *testing.T) visitor {
	t.Helper()
	v := visitor{t, connect(t, dbtest.Inbox(t)), "alice", []string{"team:7"}}
	v.list()
	return v
}

// call runs a query for one JSON value.
func call[T any](t *testing.T, conn *pgx.Conn, query string, args ...any) (result T) {
	t.Helper()
	var text []byte
	if err := conn.QueryRow(dbtest.Context(t), query, args...).Scan(&text); err != nil {
		t.Fatalf("%s %v: %v", query, args, err)
	}
	if err := json.Unmarshal(text, &result); err != nil {
		t.Fatal(err)
	}
	return result
}

func (v visitor) list() inboxPage {
	v.t.Helper()
	return v.page(100, nil)
}

func (v visitor) page(size int, before *string) inboxPage {
	v.t.Helper()
	return call[inboxPage](v.t, v.conn, "SELECT rowcast.inbox($1, $2, $3, $4)", v.name, v.groups, size, before)
}

func (v visitor) mark(action string, ids ...int64) inboxChange {
	v.t.Helper()
	return call[inboxChange](v.t, v.conn, "SELECT rowcast.inbox_mark($1, $2, $3, ids => $4)", v.name, action, v.groups, ids)
}

func (v visitor) markAll(action, cursor string) inboxChange {
	v.t.Helper()
	return call[inboxChange](v.t, v.conn, "SELECT rowcast.inbox_mark($1, $2, $3, up_to => $4)", v.name, action, v.groups, cursor)
}

func (v visitor) undo(token *string) inboxChange {
	v.t.Helper()
	return call[inboxChange](v.t, v.conn, "SELECT rowcast.inbox_undo($1, $2, $3)", v.name, token, v.groups)
}

// send inserts a row and returns its id.
func send(t *testing.T, conn *pgx.Conn, recipient string) (id int64) {
	t.Helper()
	const insert = "INSERT INTO rowcast.notifications (recipient, data) VALUES ($1, '1') RETURNING id"
	if err := conn.QueryRow(dbtest.Context(t), insert, recipient).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

// A rowState is the state of a row for a user.
type rowState struct{ seen, read, archived bool }

// stateOf returns the state of a row. The list has no archived rows, so stateOf unarchives a row that is archived.
func (v visitor) stateOf(id int64) (s rowState) {
	v.t.Helper()
	for s.archived = false; ; s.archived = true {
		for _, item := range v.list().Items {
			if item.ID == strconv.FormatInt(id, 10) {
				s.seen, s.read = item.Seen, item.Read
				return s
			}
		}
		if s.archived {
			v.t.Fatalf("row %d is not in the inbox", id)
		}
		v.mark("unarchive", id)
	}
}

// summary returns the items of the inbox, the newest first, as "recipient data seen read", and the counts.
func (p inboxPage) summary() string {
	var out strings.Builder
	for _, item := range p.Items {
		fmt.Fprintf(&out, "%s %s", item.Recipient, item.Data)
		if item.Seen {
			out.WriteString(" seen")
		}
		if item.Read {
			out.WriteString(" read")
		}
		out.WriteString(", ")
	}
	fmt.Fprintf(&out, "%d unseen, %d unread", p.Unseen, p.Unread)
	return out.String()
}

// In each state that a row can have, each operation does what the table in README.md says. This holds for rows of the
// user, of a group and of everyone, and for states that were set for a single row or for all rows. A repeated operation
// does not change the version.
func TestInboxStates(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	table := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (yes|no|–) \\| (yes|no|–) \\| (yes|no|–) \\|").FindAllStringSubmatch(string(text), -1)
	if len(table) != 5 {
		t.Fatalf("README.md has %d operations, want 5", len(table))
	}
	for _, row := range table {
		for _, byAll := range []bool{false, true} {
			operation := row[1]
			if byAll && slices.Contains([]string{"unread", "unarchive"}, operation) {
				continue
			}
			t.Run(fmt.Sprintf("%s, all %v", operation, byAll), func(t *testing.T) {
				t.Parallel()
				v := alice(t)
				for _, begin := range []rowState{{}, {seen: true}, {true, true, false}, {archived: true}, {true, false, true}, {true, true, true}} {
					want := begin
					for i, field := range []*bool{&want.seen, &want.read, &want.archived} {
						if cell := row[2+i]; cell != "–" {
							*field = cell == "yes"
						}
					}
					for _, recipient := range []string{"alice", "team:7", "*"} {
						for _, beginByAll := range []bool{false, true} {
							v.testOperation(operation, byAll, begin, beginByAll, recipient, want)
						}
					}
				}
			})
		}
	}
}

func (v visitor) testOperation(operation string, byAll bool, begin rowState, beginByAll bool, recipient string, want rowState) {
	v.t.Helper()
	id := send(v.t, v.conn, recipient)
	apply := func(action string, byAll bool) inboxChange {
		v.t.Helper()
		if byAll {
			return v.markAll(action, v.list().Cursor)
		}
		return v.mark(action, id)
	}
	if begin.seen && !begin.read {
		apply("seen", beginByAll)
	}
	if begin.read {
		apply("read", beginByAll)
	}
	if begin.archived {
		apply("archive", beginByAll)
	}
	first := apply(operation, byAll)
	second := apply(operation, byAll)
	if first.Version != second.Version || second.Undo != nil {
		v.t.Errorf("%s again: got version %d (with an undo: %t), want version %d and no undo", operation, second.Version, second.Undo != nil, first.Version)
	}
	if got := v.stateOf(id); got != want {
		v.t.Errorf("row for %s in the state %+v (set for all rows: %v): after %s (for all rows: %v) got %+v, want %+v", recipient, begin, beginByAll, operation, byAll, got, want)
	}
	v.mark("read", id)
	v.mark("archive", id)
}

// A repeated operation keeps the time of the first one.
func TestInboxKeepsTheFirstTime(t *testing.T) {
	t.Parallel()
	v := alice(t)
	id := send(t, v.conn, "alice")
	const times = "SELECT concat_ws(' ', seen_at, read_at, archived_at) FROM rowcast.inbox_states"
	v.mark("seen", id)
	seen := text(t, v.conn, times)
	v.mark("read", id)
	v.mark("archive", id)
	first := text(t, v.conn, times)
	for _, action := range []string{"seen", "read", "archive"} {
		v.mark(action, id)
	}
	if again := text(t, v.conn, times); again != first || !strings.HasPrefix(again, seen) {
		t.Errorf("got the times %q after seen, %q after all operations, and %q after their repetition, want that no time changes", seen, first, again)
	}
}

// At the first visit, earlier rows of the user are unread, and earlier rows of groups and everyone are read. The visit
// stores one row for the user. The state of a single row is stored only when the user changes it.
func TestInboxFirstVisit(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Inbox(t))
	for _, recipient := range []string{"*", "alice", "team:7", "team:8", "bob"} {
		send(t, conn, recipient)
	}
	v := visitor{t, conn, "alice", []string{"team:7"}}
	if got, want := v.list().summary(), "team:7 1 seen read, alice 1, * 1 seen read, 1 unseen, 1 unread"; got != want {
		t.Errorf("first visit: got  %s\nwant %s", got, want)
	}
	late := send(t, conn, "*")
	if got, want := v.list().summary(), "* 1, team:7 1 seen read, alice 1, * 1 seen read, 2 unseen, 2 unread"; got != want {
		t.Errorf("second visit: got  %s\nwant %s", got, want)
	}
	const stored = "SELECT concat((SELECT count(*) FROM rowcast.inbox_users), ' ', (SELECT count(*) FROM rowcast.inbox_states))"
	if got := text(t, conn, stored); got != "1 0" {
		t.Errorf("got %s users and states, want 1 and 0", got)
	}
	v.mark("read", late)
	if got := text(t, conn, stored); got != "1 1" {
		t.Errorf("after an operation: got %s users and states, want 1 and 1", got)
	}
	bob := visitor{t, conn, "bob", nil}
	if got, want := bob.list().summary(), "* 1 seen read, bob 1, * 1 seen read, 1 unseen, 1 unread"; got != want {
		t.Errorf("bob: got  %s\nwant %s", got, want)
	}
}

// An operation on a row that is for another user or group, or is an event about the inbox, has the same result as an
// operation on an id that does not exist: it changes nothing.
func TestInboxIgnoresRowsOfOthers(t *testing.T) {
	t.Parallel()
	v := alice(t)
	send(t, v.conn, "alice")
	foreign := []int64{send(t, v.conn, "bob"), send(t, v.conn, "team:8")}
	twin := text(t, v.conn, "SELECT rowcast.inbox_twin('alice')")
	foreign = append(foreign, send(t, v.conn, twin))
	before := v.list()
	for _, action := range []string{"seen", "read", "unread", "archive", "unarchive"} {
		missing := v.mark(action, 1<<40)
		for _, id := range foreign {
			if got := v.mark(action, id); got != missing || got.Version != before.Version {
				t.Errorf("%s of row %d: got %+v, want %+v as for an id that does not exist", action, id, got, missing)
			}
		}
	}
	if got, want := v.list().summary(), before.summary(); got != want {
		t.Errorf("after the operations: got the list %s, want %s", got, want)
	}
	if got := text(t, v.conn, "SELECT count(*)::text FROM rowcast.inbox_states"); got != "0" {
		t.Errorf("got %s stored states, want 0", got)
	}
}
