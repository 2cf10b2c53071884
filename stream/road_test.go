package stream_test

import (
	"fmt"
	"testing"

	"rowcast/sql/dbtest"
)

// A row goes in, however that is done, and each connection that it concerns hears of it, and no other. Each kind of statement
// tells alice "its name", bob the same, everyone a third, and takes a fourth back.
func TestFromARowToTheBrowser(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	s := serve(t, dsn)
	clients := map[string][]*client{
		"alice": {listen(t, s, "alice"), listen(t, s, "alice"), listen(t, s, "alice", "team:7")},
		"bob":   {listen(t, s, "bob")},
		"":      {listen(t, s)},
	}
	for _, all := range clients {
		for _, c := range all {
			c.hello()
		}
	}
	db := connect(t, dsn)
	ways := []string{
		`INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"a"'), ('bob', '"b"'), (NULL, '"all"')`,
		`INSERT INTO rowcast.notifications (recipient, data)
			SELECT r, to_jsonb(d) FROM (VALUES ('alice', 'a'), ('bob', 'b'), (NULL, 'all')) v (r, d)`,
		`WITH one AS (INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"a"') RETURNING id),
			two AS (INSERT INTO rowcast.notifications (recipient, data) VALUES ('bob', '"b"') RETURNING id)
			INSERT INTO rowcast.notifications (data) SELECT '"all"' FROM one, two`,
		`DO $$ BEGIN
			INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"a"'), ('bob', '"b"'), (NULL, '"all"');
			BEGIN
				INSERT INTO rowcast.notifications (data) VALUES ('"taken back"');
				RAISE EXCEPTION 'no';
			EXCEPTION WHEN raise_exception THEN
			END;
		END $$`,
	}
	for _, way := range ways {
		exec(t, db, "BEGIN; INSERT INTO rowcast.notifications (data) VALUES ('\"rolled back\"'); ROLLBACK")
		exec(t, db, way)
		wantRound(clients)
	}
	copied := &history{}
	session := copied.session(db)
	if err := session.copy(dbtest.Context(t), "alice", "bob", ""); err != nil {
		t.Fatal(err)
	}
	for recipient, want := range map[string][]string{"alice": {"[-1, 1]", "[-1, 3]"}, "bob": {"[-1, 2]", "[-1, 3]"}, "": {"[-1, 3]"}} {
		for _, c := range clients[recipient] {
			c.wantTold(want...)
		}
	}
}

// wantRound reads what one statement sends. In one statement, which row has the lower id is up to the statement.
func wantRound(clients map[string][]*client) {
	for recipient, own := range map[string]string{"alice": `"a"`, "bob": `"b"`, "": ""} {
		for _, c := range clients[recipient] {
			got := map[string]int{c.told().Data: 1}
			want := map[string]int{`"all"`: 1}
			if own != "" {
				got[c.told().Data]++
				want[own]++
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				c.Errorf("%q was told %v, want %v", recipient, got, want)
			}
		}
	}
}

// What is sent by hand reaches all who have had their hello, and has no id, so that resuming is not touched by it.
func TestByHand(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	s := serve(t, dsn)
	alice, bob := listen(t, s, "alice"), listen(t, s, "bob")
	id := alice.hello()
	bob.hello()
	db := connect(t, dsn)
	exec(t, db, `NOTIFY rowcast, 'to everyone'`)
	exec(t, db, `NOTIFY rowcast, '{"recipient": "alice", "event": "notify", "data": {"msg": "hi"}}'`)
	exec(t, db, `NOTIFY rowcast, '{"recipient": "alice", "dta": "a typing error"}'`)
	exec(t, db, `NOTIFY rowcast, '{"msg": "data itself"}'`)
	alice.wantTold(`"to everyone"`, `{"msg":"hi"}`, `{"msg":"data itself"}`)
	bob.wantTold(`"to everyone"`, `{"msg":"data itself"}`)
	if got := alice.decoder.LastID; got != id {
		t.Errorf("the id is %s, was %s", got, id)
	}
}
