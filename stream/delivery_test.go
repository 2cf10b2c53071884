package stream_test

import (
	"fmt"
	"testing"

	"rowcast/sql/dbtest"
)

// A row reaches all streams of its recipient and no others, whichever statement inserts it. Each statement inserts a
// row for alice, one for bob and one for everyone. Rows that are rolled back reach no stream.
func TestFromARowToTheBrowser(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	s := serve(t, dsn)
	clients := map[string][]*client{
		"alice":  {listen(t, s, "alice"), listen(t, s, "alice"), listen(t, s, "alice", "team:7")},
		"bob":    {listen(t, s, "bob")},
		everyone: {listen(t, s)},
	}
	for _, all := range clients {
		for _, c := range all {
			c.hello()
		}
	}
	db := connect(t, dsn)
	statements := []string{
		`INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"a"'), ('bob', '"b"'), ('*', '"all"')`,
		`INSERT INTO rowcast.notifications (recipient, data)
			SELECT r, to_jsonb(d) FROM (VALUES ('alice', 'a'), ('bob', 'b'), ('*', 'all')) v (r, d)`,
		`WITH one AS (INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"a"') RETURNING id),
			two AS (INSERT INTO rowcast.notifications (recipient, data) VALUES ('bob', '"b"') RETURNING id)
			INSERT INTO rowcast.notifications (recipient, data) SELECT '*', '"all"' FROM one, two`,
		`DO $$ BEGIN
			INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"a"'), ('bob', '"b"'), ('*', '"all"');
			BEGIN
				INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '"rolled back, too"');
				RAISE EXCEPTION 'no';
			EXCEPTION WHEN raise_exception THEN
			END;
		END $$`,
	}
	for _, statement := range statements {
		exec(t, db, "BEGIN; INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '\"rolled back\"'); ROLLBACK")
		exec(t, db, statement)
		wantRows(clients)
	}
	copied := &ledger{}
	session := copied.session(db)
	if err := session.copy(dbtest.Context(t), "alice", "bob", everyone); err != nil {
		t.Fatal(err)
	}
	for recipient, want := range map[string][]string{"alice": {"[-1, 1]", "[-1, 3]"}, "bob": {"[-1, 2]", "[-1, 3]"}, everyone: {"[-1, 3]"}} {
		for _, c := range clients[recipient] {
			c.wantData(want...)
		}
	}
}

// wantRows checks the events of one statement. The order of the rows within a statement is not fixed.
func wantRows(clients map[string][]*client) {
	for recipient, own := range map[string]string{"alice": `"a"`, "bob": `"b"`, everyone: ""} {
		for _, c := range clients[recipient] {
			got := map[string]int{c.notification().Data: 1}
			want := map[string]int{`"all"`: 1}
			if own != "" {
				got[c.notification().Data]++
				want[own]++
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				c.Errorf("%q received %v, want %v", recipient, got, want)
			}
		}
	}
}

// A NOTIFY message reaches all live streams of its recipient. It has no id, so it does not change the cursor from which
// clients resume. A message with a misspelled field reaches no stream.
func TestNotifyMessages(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	s := serve(t, dsn)
	alice, bob := listen(t, s, "alice"), listen(t, s, "bob")
	id := alice.hello()
	bob.hello()
	db := connect(t, dsn)
	exec(t, db, `NOTIFY rowcast, 'to everyone'`)
	exec(t, db, `NOTIFY rowcast, '{"recipient": "alice", "event": "notify", "data": {"msg": "hi"}}'`)
	exec(t, db, `NOTIFY rowcast, '{"recipient": "alice", "dta": "a typo"}'`)
	exec(t, db, `NOTIFY rowcast, '{"msg": "data itself"}'`)
	alice.wantData(`"to everyone"`, `{"msg":"hi"}`, `{"msg":"data itself"}`)
	bob.wantData(`"to everyone"`, `{"msg":"data itself"}`)
	if got := alice.decoder.LastID; got != id {
		t.Errorf("the last event id is %s, want %s as before", got, id)
	}
}
