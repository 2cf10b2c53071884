package listener_test

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

func TestMessagesByHand(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 257)
	const noObject = `the payload begins with "{" and is not a JSON object`
	for _, test := range []struct {
		name, payload, recipient, event, data, err string
	}{
		{name: "text is a JSON string", payload: "hello from psql", event: "message", data: `"hello from psql"`},
		{name: "a brace further on is text", payload: "hello {name}", event: "message", data: `"hello {name}"`},
		{name: "a text of lines is one line", payload: "a\r\nb", event: "message", data: `"a\r\nb"`},
		{name: "a JSON string is text, too", payload: `"a"`, event: "message", data: `"\"a\""`},
		{name: "so is a number", payload: `42`, event: "message", data: `"42"`},
		{name: "and an array", payload: `[1, 2]`, event: "message", data: `"[1, 2]"`},
		{name: "and null", payload: `null`, event: "message", data: `"null"`},
		{name: "an object is the data", payload: `{"msg": "hi"}`, event: "message", data: `{"msg":"hi"}`},
		{name: "and is made one line", payload: "{\"a\":\n [1,\r\n 2]}", event: "message", data: `{"a":[1,2]}`},
		{name: "an empty one, too", payload: `{}`, event: "message", data: `{}`},
		{name: "numbers stay as they are", payload: `{"n": 12345678901234567890.10}`, event: "message", data: `{"n":12345678901234567890.10}`},
		{name: "keys further in mean nothing", payload: `{"a": {"data": 1, "Recipient": 2}}`, event: "message", data: `{"a":{"data":1,"Recipient":2}}`},
		{name: "a key of the data may occur twice", payload: `{"a": 1, "a": 2}`, event: "message", data: `{"a":1,"a":2}`},

		{
			name: "an envelope", payload: `{"recipient": "alice", "event": "notify", "data": {"msg": "hi"}}`,
			recipient: "alice", event: "notify", data: `{"msg":"hi"}`,
		},
		{name: "with only the data", payload: `{"data": [1]}`, event: "message", data: `[1]`},
		{name: "whose data is null", payload: `{"data": null}`, event: "message", data: `null`},
		{name: "null is the same as no value", payload: `{"data": 1, "recipient": null, "event": null}`, event: "message", data: `1`},

		{name: "what looks like JSON but is not", payload: `{"a": }`, err: noObject},
		{name: "a brace that begins a text", payload: "{name} is here", err: noObject},
		{name: "a quote that is not escaped", payload: `{"recipient": "alice", "data": {"msg": "the "bank" writes"}}`, err: noObject},
		{name: "a line break that is not escaped", payload: "{\"recipient\": \"alice\", \"data\": {\"msg\": \"a\nb\"}}", err: noObject},
		{name: "an envelope without its end", payload: `{"recipient": "alice", "data": 1`, err: noObject},
		{name: "two in one", payload: `{"recipient": "alice", "data": 1} {"recipient": "bob", "data": 2}`, err: noObject},
		{name: "white space before it", payload: "\n\t\u00a0{\"recipient\": \"alice\", \"data\": }", err: noObject},
		{name: "data twice", payload: `{"data": 1, "data": 2}`, err: `the envelope's "data" occurs twice`},
		{name: "two recipients", payload: `{"recipient": "alice", "data": 1, "recipient": "bob"}`, err: `the envelope's "recipient" occurs twice`},
		{name: "nobody after a recipient", payload: `{"recipient": "alice", "data": 1, "recipient": null}`, err: `the envelope's "recipient" occurs twice`},
		{name: "two events, one escaped", payload: `{"data": 1, "event": "a", "\u0065vent": "b"}`, err: `the envelope's "event" occurs twice`},
		{name: "data in another case", payload: `{"Data": 1}`, err: `the envelope's "Data" is not one of data, recipient, event`},
		{name: "a recipient in another case", payload: `{"Recipient": "alice", "msg": "hi"}`, err: `the envelope's "Recipient" is not one of data, recipient, event`},
		{name: "an event in another case", payload: `{"data": 1, "EVENT": "notify"}`, err: `the envelope's "EVENT" is not one of data, recipient, event`},
		{name: "without data", payload: `{"recipient": "alice"}`, err: `the envelope has no "data"`},
		{name: "only an event", payload: `{"event": "notify"}`, err: `the envelope has no "data"`},
		{name: "a typing error", payload: `{"data": 1, "recipent": "alice"}`, err: `the envelope's "recipent" is not one of data, recipient, event`},
		{name: "a recipient that is a number", payload: `{"data": 1, "recipient": 7}`, err: `the envelope's "recipient" is not a string`},
		{
			name: "an empty recipient", payload: `{"data": 1, "recipient": ""}`,
			err: `the envelope's "recipient" is empty: leave it out for everyone`,
		},
		{
			name: "a long recipient", payload: `{"data": 1, "recipient": "` + long + `"}`,
			err: `the envelope's "recipient" is longer than 256 bytes`,
		},
		{name: "a recipient with a line break", payload: `{"data": 1, "recipient": "alice\n"}`, err: `the envelope's "recipient" contains a control character`},
		{name: "an event that is an object", payload: `{"data": 1, "event": {}}`, err: `the envelope's "event" is not a string`},
		{name: "an empty event", payload: `{"data": 1, "event": ""}`, err: `the envelope's "event" is empty`},
		{name: "an event of two lines", payload: `{"data": 1, "event": "a\nid: 7"}`, err: `the envelope's "event" contains a line break or NUL`},
		{name: "an event with CR", payload: `{"data": 1, "event": "a\rb"}`, err: `the envelope's "event" contains a line break or NUL`},
		{name: "an event with NUL", payload: `{"data": 1, "event": "a\u0000b"}`, err: `the envelope's "event" contains a line break or NUL`},
		{name: "an event that EventSource fires itself", payload: `{"data": 1, "event": "error"}`, err: `the envelope's "event" is reserved`},
		{name: "an event of ours", payload: `{"data": 1, "event": "rowcast.reset"}`, err: `the envelope's "event" is reserved`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := listener.ParseMessage(test.payload)
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Errorf("got error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Recipient != test.recipient || got.Event != test.event || string(got.Data) != test.data {
				t.Errorf("got %q %q %s, want %q %q %s", got.Recipient, got.Event, got.Data, test.recipient, test.event, test.data)
			}
		})
	}
}

// Any payload is refused, or results in one line of JSON. A payload that begins like an object and is not one is
// refused.
func FuzzMessage(f *testing.F) {
	for _, payload := range []string{"", "a\nb", `{}`, ` {"data": 1, "Data": 2}`, `{"a": "b"c"}`, `{"data": {"a": [1, "\n"]}}`, `{"data": 1, "event": "x", "recipient": "y"}`, `{"event":`} {
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		m, err := listener.ParseMessage(payload)
		if err != nil {
			return
		}
		if !json.Valid(m.Data) || strings.ContainsAny(string(m.Data), "\r\n") || strings.ContainsAny(m.Event, "\r\n\x00") || m.Event == "" {
			t.Errorf("%q became %q %q", payload, m.Event, m.Data)
		}
		if strings.HasPrefix(strings.TrimSpace(payload), "{") && !json.Valid([]byte(payload)) {
			t.Errorf("%q goes to %q", payload, m.Recipient)
		}
	})
}

func TestMessagesArriveByNotify(t *testing.T) {
	t.Parallel()
	dsn, other := dbtest.Database(t), dbtest.Database(t)
	var log strings.Builder
	r := listen(t, dsn, func(l *listener.Listener) { l.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	conn := connect(t, dsn)

	exec(t, connect(t, other), "NOTIFY rowcast, 'of another database'")
	exec(t, conn, `SELECT pg_notify('rowcast', '{"data": "secret", "recipient": 7}')`)
	exec(t, conn, "BEGIN; NOTIFY rowcast, 'never'; ROLLBACK")
	most := strings.Repeat("x", 7999)
	exec(t, conn, "SELECT pg_notify('rowcast', $1)", most)
	exec(t, conn, `NOTIFY rowcast, '{"recipient": "alice", "event": "notify", "data": {"msg": "hi"}}'`)

	want := []feed.Message{
		{Event: "message", Data: []byte(`"` + most + `"`)},
		{Recipient: "alice", Event: "notify", Data: []byte(`{"msg":"hi"}`)},
	}
	for i, want := range want {
		select {
		case got := <-r.messages:
			if got.Recipient != want.Recipient || got.Event != want.Event || string(got.Data) != string(want.Data) {
				t.Errorf("message %d: got %.100q %q %q", i, got.Data, got.Event, got.Recipient)
			}
		case <-time.After(patience):
			t.Fatalf("message %d did not come", i)
		}
	}
	r.stop()
	if written := log.String(); !strings.Contains(written, `envelope's \"recipient\" is not a string`) || strings.Contains(written, "secret") {
		t.Errorf("the log must name the wrong key and not the content; got %s", written)
	}
}

// NOTIFY messages can be switched off. Rows are still delivered at once.
func TestMessagesOff(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	r := listen(t, dsn, func(l *listener.Listener) { l.Message = nil })
	conn := connect(t, dsn)
	exec(t, conn, "NOTIFY rowcast, 'hello'")
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
}
