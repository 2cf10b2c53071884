package listener_test

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

func TestParseMessage(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 257)
	const noObject = `the payload begins with "{" and is not a JSON object`
	const envelope = `{"recipient": "alice", "data": 1}`
	invisible := func(character string) string {
		return `the payload has the character ` + character + ` before the "{": remove it`
	}
	const noRecipient = `the envelope has no "recipient"; to send to everyone, set it to "*"`
	for _, test := range []struct {
		name, payload, recipient, event, data, err string
	}{
		{name: "text becomes a JSON string", payload: "hello from psql", recipient: "*", event: "message", data: `"hello from psql"`},
		{name: "text with braces inside", payload: "hello {name}", recipient: "*", event: "message", data: `"hello {name}"`},
		{name: "text that begins with a byte order mark", payload: "\ufeffhello {name}", recipient: "*", event: "message", data: "\"\ufeffhello {name}\""},
		{name: "white space before an envelope", payload: "\r\n\t {\"recipient\": \"alice\", \"data\": 1}", recipient: "alice", event: "message", data: `1`},
		{name: "text of two lines becomes one line", payload: "a\r\nb", recipient: "*", event: "message", data: `"a\r\nb"`},
		{name: "a JSON string is text", payload: `"a"`, recipient: "*", event: "message", data: `"\"a\""`},
		{name: "a number is text", payload: `42`, recipient: "*", event: "message", data: `"42"`},
		{name: "an array is text", payload: `[1, 2]`, recipient: "*", event: "message", data: `"[1, 2]"`},
		{name: "null is text", payload: `null`, recipient: "*", event: "message", data: `"null"`},
		{name: "an object is the data", payload: `{"msg": "hi"}`, recipient: "*", event: "message", data: `{"msg":"hi"}`},
		{name: "an object of several lines becomes one line", payload: "{\"a\":\n [1,\r\n 2]}", recipient: "*", event: "message", data: `{"a":[1,2]}`},
		{name: "an empty object is the data", payload: `{}`, recipient: "*", event: "message", data: `{}`},
		{name: "the digits of a number do not change", payload: `{"n": 12345678901234567890.10}`, recipient: "*", event: "message", data: `{"n":12345678901234567890.10}`},
		{name: "an object with envelope keys in a nested object is the data", payload: `{"a": {"data": 1, "Recipient": 2}}`, recipient: "*", event: "message", data: `{"a":{"data":1,"Recipient":2}}`},
		{name: "an object that has a key twice is the data", payload: `{"a": 1, "a": 2}`, recipient: "*", event: "message", data: `{"a":1,"a":2}`},

		{
			name: "an envelope", payload: `{"recipient": "alice", "event": "notify", "data": {"msg": "hi"}}`,
			recipient: "alice", event: "notify", data: `{"msg":"hi"}`,
		},
		{name: "an envelope for everyone", payload: `{"data": [1], "recipient": "*"}`, recipient: "*", event: "message", data: `[1]`},
		{name: "an envelope with null as the data", payload: `{"data": null, "recipient": "alice"}`, recipient: "alice", event: "message", data: `null`},
		{name: "an envelope with null as the event", payload: `{"data": 1, "recipient": "alice", "event": null}`, recipient: "alice", event: "message", data: `1`},

		{name: "an object that is not valid JSON", payload: `{"a": }`, err: noObject},
		{name: "text that begins with a brace", payload: "{name} is here", err: noObject},
		{name: "a quote that is not escaped", payload: `{"recipient": "alice", "data": {"msg": "the "bank" writes"}}`, err: noObject},
		{name: "a line break that is not escaped", payload: "{\"recipient\": \"alice\", \"data\": {\"msg\": \"a\nb\"}}", err: noObject},
		{name: "an envelope without its end", payload: `{"recipient": "alice", "data": 1`, err: noObject},
		{name: "two envelopes", payload: `{"recipient": "alice", "data": 1} {"recipient": "bob", "data": 2}`, err: noObject},
		{name: "white space before an invalid envelope", payload: "\n\t {\"recipient\": \"alice\", \"data\": }", err: noObject},
		{name: "a byte order mark before an envelope", payload: "\ufeff" + envelope, err: invisible("U+FEFF")},
		{name: "a byte order mark before other data", payload: "\ufeff{}", err: invisible("U+FEFF")},
		{name: "a byte order mark after white space", payload: " \n\ufeff" + envelope, err: invisible("U+FEFF")},
		{name: "two byte order marks", payload: "\ufeff\ufeff " + envelope, err: invisible("U+FEFF")},
		{name: "a no-break space", payload: "\n\t\u00a0" + envelope, err: invisible("U+00A0")},
		{name: "a zero width space", payload: "\u200b" + envelope, err: invisible("U+200B")},
		{name: "a right-to-left mark", payload: "\u200f" + envelope, err: invisible("U+200F")},
		{name: "a control character", payload: "\x1b" + envelope, err: invisible("U+001B")},
		{name: "a combining grapheme joiner", payload: "\u034f" + envelope, err: invisible("U+034F")},
		{name: "a Hangul filler", payload: "\u3164" + envelope, err: invisible("U+3164")},
		{name: "a variation selector", payload: "\ufe0f" + envelope, err: invisible("U+FE0F")},
		{name: "a byte order mark with exchanged bytes", payload: "\ufffe" + envelope, err: invisible("U+FFFE")},
		{name: "a character for private use", payload: "\ue000" + envelope, err: invisible("U+E000")},
		{name: "a byte order mark of UTF-16", payload: "\xff\xfe" + envelope, err: invisible("U+FFFD")},
		{name: "data twice", payload: `{"data": 1, "data": 2}`, err: `the envelope's "data" occurs twice`},
		{name: "two recipients", payload: `{"recipient": "alice", "data": 1, "recipient": "bob"}`, err: `the envelope's "recipient" occurs twice`},
		{name: "a recipient, then null", payload: `{"recipient": "alice", "data": 1, "recipient": null}`, err: `the envelope's "recipient" occurs twice`},
		{name: "two events, one with an escaped key", payload: `{"data": 1, "event": "a", "\u0065vent": "b"}`, err: `the envelope's "event" occurs twice`},
		{name: "the key data in another case", payload: `{"Data": 1}`, err: `the envelope's "Data" is not one of data, recipient, event`},
		{name: "the key recipient in another case", payload: `{"Recipient": "alice", "msg": "hi"}`, err: `the envelope's "Recipient" is not one of data, recipient, event`},
		{name: "the key event in another case", payload: `{"data": 1, "EVENT": "notify"}`, err: `the envelope's "EVENT" is not one of data, recipient, event`},
		{name: "an envelope without a recipient", payload: `{"data": 1}`, err: noRecipient},
		{name: "an envelope with null as the recipient", payload: `{"data": 1, "recipient": null}`, err: noRecipient},
		{name: "an envelope without data", payload: `{"recipient": "alice"}`, err: `the envelope has no "data"`},
		{name: "an envelope with only an event", payload: `{"event": "notify"}`, err: `the envelope has no "data"`},
		{name: "a typing error in a key", payload: `{"data": 1, "recipent": "alice"}`, err: `the envelope's "recipent" is not one of data, recipient, event`},
		{name: "a recipient that is a number", payload: `{"data": 1, "recipient": 7}`, err: `the envelope's "recipient" is not a string`},
		{
			name: "an empty recipient", payload: `{"data": 1, "recipient": ""}`,
			err: `the envelope's "recipient" is empty`,
		},
		{
			name: "a long recipient", payload: `{"data": 1, "recipient": "` + long + `"}`,
			err: `the envelope's "recipient" is longer than 256 bytes`,
		},
		{name: "a recipient with a line break", payload: `{"data": 1, "recipient": "alice\n"}`, err: `the envelope's "recipient" contains a control character`},
		{
			name: "a reserved recipient", payload: `{"data": 1, "recipient": "rowcast.inbox:alice"}`,
			err: `the envelope's "recipient" begins with "rowcast.", which is reserved`,
		},
		{name: "an event that is an object", payload: `{"data": 1, "event": {}}`, err: `the envelope's "event" is not a string`},
		{name: "an empty event", payload: `{"data": 1, "event": ""}`, err: `the envelope's "event" is empty`},
		{name: "an event of two lines", payload: `{"data": 1, "event": "a\nid: 7"}`, err: `the envelope's "event" contains a line break or NUL`},
		{name: "an event with CR", payload: `{"data": 1, "event": "a\rb"}`, err: `the envelope's "event" contains a line break or NUL`},
		{name: "an event with NUL", payload: `{"data": 1, "event": "a\u0000b"}`, err: `the envelope's "event" contains a line break or NUL`},
		{name: "an event that EventSource fires itself", payload: `{"data": 1, "event": "error"}`, err: `the envelope's "event" is reserved`},
		{name: "an event that is reserved for rowcast", payload: `{"data": 1, "event": "rowcast.reset"}`, err: `the envelope's "event" is reserved`},
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
				t.Errorf("got recipient %q, event %q and data %s, want %q, %q and %s", got.Recipient, got.Event, got.Data, test.recipient, test.event, test.data)
			}
		})
	}
}

// parseMessage refuses a payload or returns a message. The data of the message is one line of JSON. Its event is not
// empty and has no line break or NUL. parseMessage refuses a payload that begins with a brace, perhaps after characters
// that are not graphic, but is not a JSON object.
func FuzzMessage(f *testing.F) {
	for _, payload := range []string{"", "a\nb", `{}`, ` {"data": 1, "Data": 2}`, `{"a": "b"c"}`, `{"data": {"a": [1, "\n"]}}`, `{"data": 1, "event": "x", "recipient": "y"}`, `{"data": 1, "recipient": "*"}`, `{"data": 1, "recipient": null}`, `{"event":`, "\ufeff{}", "\u00a0{}"} {
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		m, err := listener.ParseMessage(payload)
		if err != nil {
			return
		}
		if !json.Valid(m.Data) || strings.ContainsAny(string(m.Data), "\r\n") || strings.ContainsAny(m.Event, "\r\n\x00") || m.Event == "" {
			t.Errorf("payload %q: got event %q and data %q, want an event that is not empty and has no line break or NUL, and one line of JSON", payload, m.Event, m.Data)
		}
		notGraphic := func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }
		if strings.HasPrefix(strings.TrimLeftFunc(payload, notGraphic), "{") && !json.Valid([]byte(payload)) {
			t.Errorf("payload %q begins with a brace and is not JSON, but is sent to recipient %q, want it refused", payload, m.Recipient)
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
		{Recipient: feed.Everyone, Event: "message", Data: []byte(`"` + most + `"`)},
		{Recipient: "alice", Event: "notify", Data: []byte(`{"msg":"hi"}`)},
	}
	for i, want := range want {
		select {
		case got := <-r.messages:
			if got.Recipient != want.Recipient || got.Event != want.Event || string(got.Data) != string(want.Data) {
				t.Errorf("message %d: got data %.100q, event %q and recipient %q, want data %.100q, event %q and recipient %q",
					i, got.Data, got.Event, got.Recipient, want.Data, want.Event, want.Recipient)
			}
		case <-time.After(patience):
			t.Fatalf("waited %v for message %d", patience, i)
		}
	}
	r.stop()
	if written := log.String(); !strings.Contains(written, `envelope's \"recipient\" is not a string`) || strings.Contains(written, "secret") {
		t.Errorf("the log must name the wrong key and must not have the content; the log is %s", written)
	}
}

// A listener without Message ignores NOTIFY messages, and still delivers rows.
func TestMessagesOff(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	r := listen(t, dsn, func(l *listener.Listener) { l.Message = nil })
	conn := connect(t, dsn)
	exec(t, conn, "NOTIFY rowcast, 'hello'")
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
}
