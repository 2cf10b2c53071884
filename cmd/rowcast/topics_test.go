package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// A topicStream is an open stream, whose events arrive in the channel events.
type topicStream struct {
	t          *testing.T
	recipients string
	events     chan sse.Event // closed at the end of the stream
	lastID     string
	close      context.CancelFunc
}

// openStream opens a stream from a cursor, or from now if lastID is "". It waits for rowcast.hello.
func openStream(t *testing.T, h *hub, query, lastID string, headers ...string) *topicStream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+"/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Last-Event-ID", lastID)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := streamClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: got %s, want a stream", query, response.Status)
	}
	s := &topicStream{t: t, events: make(chan sse.Event), close: cancel}
	ended := make(chan struct{})
	t.Cleanup(func() { cancel(); <-ended })
	go func() {
		defer close(ended)
		defer close(s.events)
		defer response.Body.Close()
		for event, err := range sse.Events(response.Body) {
			if err != nil {
				return
			}
			select {
			case s.events <- event:
			case <-ctx.Done():
				return
			}
		}
	}()
	s.next("rowcast.void")
	hello := s.next("rowcast.hello")
	var data struct{ Recipients []string }
	if err := json.Unmarshal([]byte(hello.Data), &data); err != nil {
		t.Fatal(err)
	}
	s.recipients = strings.Join(data.Recipients, " ")
	return s
}

// next returns the next event, and fails the test if the event has another name. It skips heartbeats.
func (s *topicStream) next(name string) sse.Event {
	s.t.Helper()
	for {
		event, ok := receive(s.t, s.events, "the event "+name)
		switch {
		case !ok:
			s.t.Fatalf("the stream has ended before %s", name)
		case event.Name == name:
			s.lastID = event.LastID
			return event
		case event.Name != "rowcast.beat":
			s.t.Fatalf("got %s %s, want %s", event.Name, event.Data, name)
		}
	}
}

// wants fails the test unless the next rows of the stream have this data.
func (s *topicStream) wants(rows ...string) {
	s.t.Helper()
	for _, want := range rows {
		if got := s.next("message").Data; got != `"`+want+`"` {
			s.t.Fatalf("got the row %s, want %q", got, want)
		}
	}
}

// A granter grants topics to alice. It returns the headers of a request that gets the grant.
type granter func(topics ...string) []string

// byApp returns a hub with an app, and a granter. The app grants the topics of the granter's last call for a minute.
func byApp(t *testing.T, dsn string, args ...string) (*hub, granter) {
	t.Helper()
	var groups atomic.Value
	app := newAuthApp(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"recipient": "alice", "groups": groups.Load(), "expires_in": 60})
	})
	h := startHub(t, dsn, append([]string{"--auth-url", app.URL}, args...)...)
	cookie := 0
	return h, func(topics ...string) []string {
		groups.Store(topics)
		cookie++ // so that the hub does not use an earlier answer
		return []string{"Cookie", fmt.Sprintf("session=%d", cookie)}
	}
}

// byToken returns a hub that accepts tokens, and a granter that grants topics with tokens.
func byToken(t *testing.T, dsn string, args ...string) (*hub, granter) {
	t.Helper()
	h := startHub(t, dsn, append([]string{"--jwt-secret", secret}, args...)...)
	return h, func(topics ...string) []string { return bearer(signed(t, jwt.MapClaims{"topics": topics})) }
}

// inserter returns a function that inserts rows in one transaction. A row is written as recipient=data.
func inserter(t *testing.T, dsn string) func(rows ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return func(rows ...string) {
		t.Helper()
		var recipients, data []string
		for _, row := range rows {
			recipient, text, _ := strings.Cut(row, "=")
			recipients, data = append(recipients, recipient), append(data, text)
		}
		_, err := conn.Exec(t.Context(), `INSERT INTO rowcast.notifications (recipient, data)
			SELECT recipient, to_jsonb(text) FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS rows (recipient, text, i) ORDER BY i`, recipients, data)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A stream receives the rows of a granted topic, and of no other topic. This holds while the stream is open, when it
// resumes from memory or from the table, and after the topic was withdrawn.
func TestNobodyHearsATopicThatWasNotGranted(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		start func(*testing.T, string, ...string) (*hub, granter)
		args  []string
	}{
		"app, from memory":      {byApp, nil},
		"app, from the table":   {byApp, []string{"--memory", "1B"}},
		"token, from memory":    {byToken, nil},
		"token, from the table": {byToken, []string{"--memory", "1B"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			h, grant := tt.start(t, dsn, tt.args...)
			insert := inserter(t, dsn)
			denied := func(query, lastID string, headers []string) {
				t.Helper()
				status, says := listenTo(t, h, query, append(slices.Clone(headers), "Last-Event-ID", lastID)...)
				if want := "the topic \"ticket:42\" was not granted\n"; status != 403 || !strings.HasSuffix(says, want) {
					t.Errorf("%s: got %d, %s, want 403, %s", query, status, says, want)
				}
			}
			denied("?topic=ticket:42", "", grant("ticket:43", "ticket:4", "ticket:421"))
			denied("?topic=ticket:43&topic=ticket:42", "", grant("ticket:43"))

			s := openStream(t, h, "?topic=ticket:42", "", grant("ticket:42")...)
			if s.recipients != "alice ticket:42" {
				t.Errorf("the stream is for %s, want alice ticket:42", s.recipients)
			}
			insert("ticket:43=no", "ticket:42=yes", "bob=no", "ticket:4=no", "ticket:421=no", "*=end")
			s.wants("yes", "end")
			s.close()

			insert("ticket:43=no", "ticket:42=missed", "bob=no", "alice=own", "*=end")
			again := openStream(t, h, "?topic=ticket:42", s.lastID, grant("ticket:42")...)
			again.wants("missed", "own", "end")
			again.close()

			insert("ticket:42=no", "alice=own", "*=end")
			denied("?topic=ticket:42", again.lastID, grant())
			other := openStream(t, h, "", again.lastID, grant()...)
			other.wants("own", "end")
			insert("ticket:42=no", "*=end")
			other.wants("end")
		})
	}
}

// If the app does not grant a topic again at a renewal, the open stream ends. No later stream receives the rows of that
// topic.
func TestATopicIsWithdrawnAtTheRenewal(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	granted := saying(200, `{"recipient": "alice", "groups": ["ticket:42"], "expires_in": 1}`)
	withdrawn := saying(200, `{"recipient": "alice", "expires_in": 60}`)
	app := newAuthApp(t, granted)
	h := startHub(t, dsn, "--auth-url", app.URL)
	insert := inserter(t, dsn)
	s := openStream(t, h, "?topic=ticket:42", "", "Cookie", "session=1")
	insert("ticket:42=yes")
	s.wants("yes")
	app.answers(withdrawn)
	if bye := s.next("rowcast.bye"); !strings.Contains(bye.Data, `"revoked"`) {
		t.Errorf("got %s, want the reason revoked", bye.Data)
	}
	insert("ticket:42=no", "*=end")
	for event := range s.events {
		if event.Name == "message" {
			t.Errorf("got the row %s after the topic was withdrawn", event.Data)
		}
	}
	if status, says := listenTo(t, h, "?topic=ticket:42", "Cookie", "session=1", "Last-Event-ID", s.lastID); status != 403 {
		t.Errorf("got %d, %s, want 403", status, says)
	}
	questions := app.questions()
	openStream(t, h, "", s.lastID, "Cookie", "session=1").wants("end")
	for i, question := range questions {
		if got := question.Header.Get("Rowcast-Topics"); got != "ticket:42" {
			t.Errorf("request %d to the app: Rowcast-Topics is %q, want ticket:42", i+1, got)
		}
	}
}

// With --public, a client without a credential receives the rows for everyone, and the rows of the public topics that
// it asks for. It receives no other rows, even when it resumes with the cursor of a user. A client with a credential
// may ask for public topics, too. A wrong credential is denied.
func TestPublicStreams(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"from memory": nil, "from the table": {"--memory", "1B"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			h, grant := byToken(t, dsn, append(args, "--public")...)
			insert := inserter(t, dsn)
			alice := openStream(t, h, "?topic=public:news&topic=ticket:42", "", grant("ticket:42")...)
			if alice.recipients != "alice public:news ticket:42" {
				t.Errorf("the stream of alice is for %s, want alice public:news ticket:42", alice.recipients)
			}
			stranger := openStream(t, h, "?topic=public:news", "")
			if stranger.recipients != "public:news" {
				t.Errorf("the public stream is for %s, want public:news", stranger.recipients)
			}
			rows := []string{"alice=own", "ticket:42=ticket", "public:other=no", "public:news=news", "public=no", "*=end"}
			insert(rows...)
			stranger.wants("news", "end")
			alice.wants("own", "ticket", "news", "end")
			alice.close()
			insert(rows...)
			openStream(t, h, "?topic=public:news", alice.lastID).wants("news", "end")
			openStream(t, h, "", alice.lastID).wants("end")

			for query, headers := range map[string][]string{
				"?topic=ticket:42":                    nil,
				"?topic=public:news&topic=public":     nil,
				"?topic=public:news&topic=team:7":     nil,
				"?topic=public:news":                  bearer("x"),
				"?topic=public:news&last_event_id=42": bearer(signed(t, jwt.MapClaims{"exp": 1})),
			} {
				if status, says := listenTo(t, h, query, headers...); status != 401 {
					t.Errorf("%s %v: got %d, %s, want 401", query, headers, status, says)
				}
			}
			if status, says := listenTo(t, h, "?topic=public:news&topic=ticket:43", grant("ticket:42")...); status != 403 {
				t.Errorf("a topic that was not granted: got %d, %s, want 403", status, says)
			}
		})
	}
}

// A hub may have public streams only. Then serve refuses flags that only an authentication method uses, such as
// --jwt-audience.
func TestAHubWithPublicStreamsOnly(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := startHub(t, dsn, "--public", "--group-mark", "/")
	insert := inserter(t, dsn)
	s := openStream(t, h, "?topic=public:/news", "", "Authorization", "Bearer x", "Cookie", "session=x")
	insert("public:/news=news", "alice=no", "*=end")
	s.wants("news", "end")
	if status, says := listenTo(t, h, "?topic=team:7"); status != 401 || !strings.HasSuffix(says, "this hub has only public streams: ask for topics that begin with public:\n") {
		t.Errorf("another topic: got %d, %s, want 401 and that this hub has only public streams", status, says)
	}
	code, _, stderr := run(t, nil, "serve", "--public", "--jwt-audience", "a", "--database-url", nobodyThere)
	if code != 2 || !strings.Contains(stderr, "--jwt-audience has no effect with --public") {
		t.Errorf("with --jwt-audience: got %d, %s, want 2 and that the flag has no effect", code, stderr)
	}
}

// rowcast tail asks for topics, also when it reconnects. The topics in its URL remain.
func TestTailWithTopics(t *testing.T) {
	t.Parallel()
	h := startHub(t, dbtest.Database(t), "--public", "--jwt-secret", secret)
	token := signed(t, jwt.MapClaims{"topics": []string{"ticket:*"}})
	for want, args := range map[string][]string{
		`"data":{"recipients":["alice","public:a,b","ticket:42"],`: {"--token", token, "--topic", "ticket:42", "--topic", "public:a,b"},
		`"data":{"recipients":["public:news"],`:                    {"--topic", "public:news"},
	} {
		tail := start(t, nil, append([]string{"tail", "--json", "--verbose", "--url", h.url + "/events"}, args...)...)
		tail.out.await(t, regexp.QuoteMeta(want))
	}
	code, _, stderr := run(t, nil, "tail", "--url", h.url+"/events", "--token", token, "--topic", "room:7")
	if want := "answered 403 Forbidden: the topic \"room:7\" was not granted\n"; code != 1 || !strings.HasSuffix(stderr, want) {
		t.Errorf("another topic: got %d, %s, want 1, %s", code, stderr, want)
	}

	queries := make(chan string, 2)
	visit := func(w http.ResponseWriter, r *http.Request) {
		queries <- r.URL.RawQuery
		streamOf("retry: 1\n")(w, r)
	}
	run(t, nil, "tail", "--url", script(t, visit, visit)+"/?topic=a%3A1", "--uid", "alice", "--topic", "b:2")
	for range 2 {
		const want = "topic=a%3A1&topic=b%3A2&uid=alice"
		if got, _ := receive(t, queries, "a request"); got != want {
			t.Errorf("got the query %s, want %s", got, want)
		}
	}
}

// rowcast token signs a token that allows topics.
func TestTokenWithTopics(t *testing.T) {
	t.Parallel()
	h := startHub(t, dbtest.Database(t), "--jwt-secret", secret, "--jwt-topics-claim", "https://app.example/topics")
	code, token, stderr := run(t, environment{"ROWCAST_JWT_SECRET": secret, "ROWCAST_JWT_TOPICS_CLAIM": "https://app.example/topics"},
		"token", "--sub", "alice", "--topic", "ticket:*", "--topic", "room:7")
	if code != 0 {
		t.Fatalf("got %d, %s, want 0", code, stderr)
	}
	const want = `{"recipients":["alice","room:7","ticket:42"],"heartbeat":15}`
	if _, says := listenTo(t, h, "?topic=ticket:42&topic=room:7", bearer(strings.TrimSpace(token))...); says != want {
		t.Errorf("got %s, want %s", says, want)
	}
}
