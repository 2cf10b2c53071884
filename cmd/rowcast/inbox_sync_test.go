package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/cursor"
)

// A list and the stream from the cursor of its first page together have every row. A row that the cursor has seen is in
// the list once, and not in the stream. Every other row is in the stream once, and may also be once on a later page
// of the list. Meanwhile, several writers insert rows, and their transactions may commit in another order than they
// began.
func TestListAndStreamHaveEachRow(t *testing.T) {
	t.Parallel()
	h, dsn := inboxHub(t)
	alice := h.inboxOf(t, "alice", "team:7")
	alice.list("")
	late, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close(context.Background())
	if _, err := late.Exec(t.Context(), `BEGIN; INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"late"')`); err != nil {
		t.Fatal(err)
	}
	const writers, each = 4, 60
	var running sync.WaitGroup
	progress := make(chan struct{}, writers*each)
	for w := range writers {
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		running.Go(func() {
			for i := range each {
				insertSlowly(t, conn, fmt.Sprint(w*each+i))
				progress <- struct{}{}
			}
		})
	}
	for range writers * each / 3 {
		receive(t, progress, "the writers")
	}
	first := alice.list("?limit=7")
	if _, err := late.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	listed := map[string]int{}
	for page := first; ; page = alice.list("?limit=7&before=" + page.Before) {
		for _, row := range page.Items {
			listed[row.ID]++
		}
		if page.Before == "" {
			break
		}
	}
	stream := openStream(t, h, "", first.Cursor, alice.headers...)
	running.Wait()
	inserter(t, dsn)("alice=last")
	streamed := map[string]int{}
	for last := ""; last != `"last"`; {
		event := stream.next("message")
		id, _, _ := strings.Cut(event.LastID, "-")
		streamed[id]++
		last = event.Data
	}
	checkParts(t, dsn, first, listed, streamed)
}

// checkParts checks how often each row of the table is in a list and in a stream. The argument first is the first page
// of the list. The stream began at the cursor of this page.
func checkParts(t *testing.T, dsn string, first inboxAnswer, listed, streamed map[string]int) {
	t.Helper()
	at, err := cursor.Parse(first.Cursor)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	rows := rowsOf(t, dsn)
	for _, row := range rows {
		id := fmt.Sprint(row.ID)
		onFirst := slices.ContainsFunc(first.Items, func(item inboxItem) bool { return item.ID == id })
		switch inList, inStream := listed[id], streamed[id]; {
		case at.Seen(row.Xid, row.ID):
			if seen++; inList != 1 || inStream != 0 {
				t.Errorf("the cursor has seen the row %s: it is %d times in the list, want once; %d times in the stream, want never", id, inList, inStream)
			}
		case inList > 1 || onFirst || inStream != 1:
			t.Errorf("the cursor has not seen the row %s: it is %d times in the list, want at most once; on the first page: %t, want false; %d times in the stream, want once",
				id, inList, onFirst, inStream)
		}
	}
	if late := fmt.Sprint(rows[0].ID); listed[late] != 1 || streamed[late] != 1 {
		t.Errorf("the late row is %d times in the list and %d times in the stream, want once in each", listed[late], streamed[late])
	}
	if seen == 0 || seen > len(rows)-2 {
		t.Errorf("the cursor has seen %d of %d rows, want at least 1 and at most %d, without the late row and the last row", seen, len(rows), len(rows)-2)
	}
}

// rowsOf returns the ids and transaction numbers of the rows in the table, in the order of the ids.
func rowsOf(t *testing.T, dsn string) []cursor.Row {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	found, err := conn.Query(t.Context(), "SELECT xid, id FROM rowcast.notifications ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := pgx.CollectRows(found, func(r pgx.CollectableRow) (row cursor.Row, err error) {
		err = r.Scan(&row.Xid, &row.ID)
		return row, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// insertSlowly inserts a row in a transaction that sleeps for up to 4 ms before it commits.
func insertSlowly(t *testing.T, conn *pgx.Conn, data string) {
	recipient := []string{"alice", "team:7", "*"}[rand.IntN(3)]
	_, err := conn.Exec(t.Context(), fmt.Sprintf(`BEGIN; INSERT INTO rowcast.notifications (recipient, data) VALUES ('%s', '"%s"');
		SELECT pg_sleep(%f); COMMIT`, recipient, data, rand.Float64()*0.004))
	if err != nil {
		t.Error(err)
	}
}

// A change of all rows marks only the rows that were visible to the list. Two rows stay unread and are in the stream
// from the cursor of the list: one whose transaction began before the list and committed after it, and one that was
// inserted after the list.
func TestAllLeavesOtherRowsUnread(t *testing.T) {
	t.Parallel()
	h, dsn := inboxHub(t)
	alice := h.inboxOf(t, "alice")
	alice.list("")
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"late"')`); err != nil {
		t.Fatal(err)
	}
	insert := inserter(t, dsn)
	insert("alice=shown")
	list := alice.list("")
	insert("alice=after")
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := alice.all("read", list.Cursor); got.Unread != 2 || got.Unseen != 2 {
		t.Errorf("%d rows are unread and %d unseen, want 2 and 2: the rows that the list did not show", got.Unread, got.Unseen)
	}
	for _, item := range alice.list("").Items {
		if data := strings.Trim(string(item.Data), `"`); item.Read != (data == "shown") {
			t.Errorf("the row %s is read: %t, want %t", data, item.Read, data == "shown")
		}
	}
	stream := openStream(t, h, "", list.Cursor, alice.headers...)
	got := []string{stream.next("message").Data, stream.next("message").Data}
	if slices.Sort(got); !slices.Equal(got, []string{`"after"`, `"late"`}) {
		t.Errorf("the stream from the list has the rows %q, want after and late, which the list did not show", got)
	}
	stream.next("rowcast.inbox")
}

// A deleted row is no longer in the list and the counts. The streams of its recipients receive an event.
func TestDeletedRowsLeaveTheInbox(t *testing.T) {
	t.Parallel()
	h, dsn := inboxHub(t)
	alice, bob := h.inboxOf(t, "alice", "team:7"), h.inboxOf(t, "bob", "team:8")
	alice.list("")
	bob.list("")
	inserter(t, dsn)("alice=1", "team:7=2", "*=3", "alice=4")
	list := alice.list("")
	alice.mark("read", list.idOf(t, "1"))
	now := alice.list("").Cursor
	streams := map[*topicStream][]string{
		openStream(t, h, "", now, alice.headers...): {"1", "2", "3"},
		openStream(t, h, "", now, bob.headers...):   {"3"},
	}
	runSQL(t, dsn, `DELETE FROM rowcast.notifications WHERE data <> '"4"'`)
	for stream, want := range streams {
		var got []string
		for range want {
			event := decodeEvent(t, stream.next("rowcast.inbox"))
			for _, data := range []string{"1", "2", "3"} {
				if event.Action == "delete" && slices.Contains(event.IDs, list.idOf(t, data)) {
					got = append(got, data)
				}
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("the stream had events about the deletion of the rows %q, want %q", got, want)
		}
	}
	if got := alice.list(""); got.state() != "4" || got.Unread != 1 || got.Unseen != 1 {
		t.Errorf("got %s, %d unread, %d unseen, want only the row 4, unread and unseen", got.state(), got.Unread, got.Unseen)
	}
	if got := bob.list(""); len(got.Items) != 0 || got.Unread != 0 {
		t.Errorf("for another user: got the rows %q, %d unread, want no rows, 0 unread", got.state(), got.Unread)
	}
}

// A device keeps a list up to date with the events of its stream, as a page does.
type device struct {
	inboxClient
	hub    *hub
	stream *topicStream
	rows   map[string]inboxItem // the list
	newest inboxAnswer          // the counts with the highest version
	last   string               // the cursor of the newest event, or of the first list if no event has come
}

func (d *device) load() {
	d.Helper()
	list := d.list("?limit=100")
	d.rows = make(map[string]inboxItem)
	for _, item := range list.Items {
		d.rows[item.ID] = item
	}
	d.take(list)
}

// take keeps the counts of an answer or an event, unless the device has newer ones.
func (d *device) take(a inboxAnswer) {
	if a.Version >= d.newest.Version {
		d.newest = a
	}
}

// connect opens a stream from the cursor in d.last.
func (d *device) connect() { d.stream = openStream(d.T, d.hub, "", d.last, d.headers...) }

// follow applies the events of the stream until the device has the version of the newest event in the database.
func (d *device) follow(dsn string) {
	d.Helper()
	version, err := strconv.Atoi(valueOf(d.T, dsn, `SELECT coalesce(max((data->>'version')::integer), 0)::text
		FROM rowcast.notifications WHERE recipient = 'rowcast.inbox:alice'`))
	if err != nil {
		d.Fatal(err)
	}
	for d.newest.Version < version {
		event := d.stream.next("rowcast.inbox")
		d.last = event.LastID
		change := decodeEvent(d.T, event)
		if change.Version <= d.newest.Version {
			continue // the list that the device has loaded contains this change
		}
		if change.UpTo != "" || change.Action == "reload" {
			d.load()
			continue
		}
		for _, id := range change.IDs {
			item, listed := d.rows[id]
			switch {
			case change.Action == "unarchive":
				d.load()
			case !listed:
			case change.Action == "archive":
				delete(d.rows, id)
			default:
				item.Read = change.Action == "read" || item.Read && change.Action != "unread"
				item.Seen = item.Seen || change.Action == "seen" || change.Action == "read"
				d.rows[id] = item
			}
		}
		d.take(change)
	}
}

// random makes a random change: of one or two rows, or of all rows that the cursor has seen, or an undo.
func (d *device) random(ids []string, cursor string) {
	d.Helper()
	switch action := []string{"seen", "read", "unread", "archive", "unarchive", "undo", "all"}[rand.IntN(7)]; action {
	case "all":
		d.all([]string{"seen", "read", "archive"}[rand.IntN(3)], cursor)
	case "undo":
		d.change("undo", fmt.Sprintf(`{"undo": "%d"}`, 1+rand.IntN(30)))
	default:
		d.mark(action, ids[rand.IntN(len(ids))], ids[rand.IntN(len(ids))])
	}
}

// Two devices of a user make random changes, while a third device is offline. After all three have read the events of
// their streams, they have the same list and counts as the database.
func TestDevicesEndInTheSameState(t *testing.T) {
	t.Parallel()
	h, dsn := inboxHub(t)
	devices := make([]*device, 3)
	for i := range devices {
		devices[i] = &device{inboxClient: h.inboxOf(t, "alice", "team:7"), hub: h}
		devices[i].list("")
	}
	rows := make([]string, 12)
	for i := range rows {
		rows[i] = []string{"alice", "team:7", "*"}[i%3] + "=" + strconv.Itoa(i)
	}
	inserter(t, dsn)(rows...)
	var ids []string
	for _, d := range devices {
		d.load()
		d.last = d.newest.Cursor
	}
	cursor := devices[0].last
	for id := range devices[0].rows {
		ids = append(ids, id)
	}
	devices[0].connect()
	devices[1].connect()
	for round := range 30 {
		for _, i := range rand.Perm(2) {
			devices[i].random(ids, cursor)
			if round%3 == 0 {
				devices[i].follow(dsn)
			}
		}
	}
	devices[2].connect() // the device was offline until now
	want := devices[0].list("?limit=100")
	for i, d := range devices {
		d.follow(dsn)
		if len(d.rows) != len(want.Items) || d.newest.Unread != want.Unread || d.newest.Unseen != want.Unseen {
			t.Errorf("device %d has %d rows, %d unread and %d unseen, want %d, %d and %d", i,
				len(d.rows), d.newest.Unread, d.newest.Unseen, len(want.Items), want.Unread, want.Unseen)
		}
		for _, item := range want.Items {
			if got := d.rows[item.ID]; got.Read != item.Read || got.Seen != item.Seen {
				t.Errorf("device %d has the row %s as %+v, want %+v", i, item.ID, got, item)
			}
		}
	}
}

// A change is made even if the client closes the connection before the answer. A page that changes a row and then
// follows a link does this.
func TestAChangeContinuesWithoutTheClient(t *testing.T) {
	t.Parallel()
	h, dsn := inboxHub(t)
	alice := h.inboxOf(t, "alice")
	alice.list("")
	inserter(t, dsn)("alice=1")
	id := alice.list("").Items[0].ID
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT rowcast.inbox_mark('alice', 'seen', ids => ARRAY[$1::bigint])", id); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url+"/inbox/read", strings.NewReader(`{"ids": ["`+id+`"]}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{"Content-Type": {"application/json"}, alice.headers[0]: {alice.headers[1]}}
	left := make(chan error)
	go func() {
		_, err := client.Do(request)
		left <- err
	}()
	waitForLocks(t, dsn, "1")
	leave()
	if err, _ := receive(t, left, "the end of the request"); err == nil {
		t.Error("the request has succeeded, want an error, because the client has left")
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the change", func() bool { return alice.list("").state() == "1 read" })
}
