package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rowcast/stream"
)

// requestTo returns a request with a query and headers, which are given as name, value, name, value.
func requestTo(t *testing.T, query string, headers ...string) *http.Request {
	t.Helper()
	r := newRequest(t.Context(), headers...)
	r.URL.RawQuery = query
	return r
}

// A request names its topics as topic=NAME. A query that would lose a topic, or has a topic that is not valid, is
// refused.
func TestTopicsOfARequest(t *testing.T) {
	t.Parallel()
	var many, long []string
	for i := range MaxGroups + 1 {
		many = append(many, fmt.Sprintf("topic=a:%d", i))
	}
	for i := range 20 {
		long = append(long, fmt.Sprintf("topic=%d:%s", i, strings.Repeat("x", 210)))
	}
	tests := []struct {
		query string
		want  []string
		err   string
	}{
		{"", nil, ""},
		{"last_event_id=x", nil, ""},
		{"topic=ticket:42", []string{"ticket:42"}, ""},
		{"topic=b:1&x=y&topic=a%3a1&topic=b:1", []string{"a:1", "b:1"}, ""},
		{"topic=a,b:1", []string{"a,b:1"}, ""},
		{strings.Join(many[:MaxGroups], "&"), nil, "-"},
		{"topic=", nil, "a topic is empty"},
		{"topic", nil, "a topic is empty"},
		{"topic=*", nil, `a topic is "*", which means everyone`},
		{"topic=a:%0d%0a", nil, "a topic contains a control character"},
		{"topic=a:%ff", nil, "a topic is not valid UTF-8"},
		{"topic=" + strings.Repeat("x", 257), nil, "a topic is longer than 256 bytes"},
		{"topic=a:1&topic=%zz", nil, `the query cannot be read: invalid URL escape "%zz"`},
		{"topic=a:1;topic=b:1", nil, "the query cannot be read: invalid semicolon separator in query"},
		{"topics=a:1,b:1", nil, `unknown parameter "topics": write topic=NAME for each topic`},
		{"Topic=a:1", nil, `unknown parameter "Topic": write topic=NAME for each topic`},
		{"topic[]=a:1", nil, `unknown parameter "topic[]": write topic=NAME for each topic`},
		{"topic=a:1&topic%5b0%5d=b:1", nil, `unknown parameter "topic[0]": write topic=NAME for each topic`},
		{"ToPics[]=a:1", nil, `unknown parameter "ToPics[]": write topic=NAME for each topic`},
		{"topic%0a" + strings.Repeat("x", 100), nil, `unknown parameter "topic\n` + strings.Repeat("x", 34) + `": write topic=NAME for each topic`},
		{strings.Join(many, "&"), nil, "more than 100 topics"},
		{strings.Join(long, "&"), nil, "the topics have 4269 bytes together, and may have 4096"},
	}
	for _, tt := range tests {
		got, err := Topics(requestTo(t, tt.query))
		denial, denied := errors.AsType[Denial](err)
		switch {
		case tt.err == "-":
			if err != nil || len(got) != MaxGroups {
				t.Errorf("%.40s: got %d topics, %v, want %d", tt.query, len(got), err, MaxGroups)
			}
		case tt.err == "" && (err != nil || !slices.Equal(got, tt.want)):
			t.Errorf("%.40s: got %q, %v, want %q", tt.query, got, err, tt.want)
		case tt.err != "" && (!denied || denial.Status != http.StatusBadRequest || denial.Reason != tt.err):
			t.Errorf("%.40s: got the status %d and the error %v, want 400, %s", tt.query, denial.Status, err, tt.err)
		}
	}
}

// A token allows its groups, and the topics that its claim names. A string of the claim that ends with "*" allows every
// topic that begins with the rest of the string. A token never allows the id of a user as a topic. The claim has no
// effect on a stream that asks for no topics.
func TestTopicsOfAToken(t *testing.T) {
	t.Parallel()
	tokens, sign := newTokens(t)
	tests := []struct {
		claim any
		query string
		want  []string // the groups of the grant
	}{
		{[]string{"ticket:42"}, "", []string{"team:7"}},
		{[]string{"ticket:42"}, "topic=ticket:42", []string{"team:7", "ticket:42"}},
		{[]string{"ticket:42"}, "topic=ticket:421", []string{"team:7"}},
		{[]string{"ticket:42"}, "topic=ticket:4", []string{"team:7"}},
		{[]string{"ticket:*"}, "topic=ticket:42&topic=ticket:43&topic=room:7", []string{"team:7", "ticket:42", "ticket:43"}},
		{[]string{"ticket:*"}, "topic=ticket:", []string{"team:7", "ticket:"}},
		{[]string{"ticket:*"}, "topic=Ticket:42", []string{"team:7"}},
		{[]string{"tick*:42"}, "topic=ticket:42", []string{"team:7"}},
		{[]string{"*"}, "topic=ticket:42", []string{"team:7", "ticket:42"}},
		{[]string{""}, "topic=ticket:42", []string{"team:7"}},
		{[]string{}, "topic=ticket:42", []string{"team:7"}},
		{nil, "topic=ticket:42", []string{"team:7"}},
		{nil, "topic=team:7", []string{"team:7"}},
		{"another meaning", "", []string{"team:7"}},
	}
	for _, tt := range tests {
		token := sign(jwt.MapClaims{"sub": "alice", "groups": []string{"team:7"}, "topics": tt.claim})
		grant, err := tokens.Authenticate(requestTo(t, tt.query, "Authorization", "Bearer "+token))
		if err != nil || !slices.Equal(grant.Groups, tt.want) {
			t.Errorf("the claim %v and %s: got %q, %v, want %q", tt.claim, tt.query, grant.Groups, err, tt.want)
		}
	}
	for claim, want := range map[any]string{
		"ticket:42": "the token's topics are not an array of strings",
		42:          "the token's topics are not an array of strings",
	} {
		token := sign(jwt.MapClaims{"sub": "alice", "topics": claim})
		if _, err := tokens.Authenticate(requestTo(t, "topic=ticket:42", "Authorization", "Bearer "+token)); err == nil || err.Error() != want {
			t.Errorf("the claim %v: got the error %v, want %s", claim, err, want)
		}
	}
	token := sign(jwt.MapClaims{"sub": "alice", "topics": []string{"*"}})
	if _, err := tokens.Authenticate(requestTo(t, "topic=bob", "Authorization", "Bearer "+token)); err == nil || !strings.Contains(err.Error(), "could be a user's id") {
		t.Errorf("the topic bob: got the error %v, want a denial, because it could be a user's id", err)
	}
}

// A Handler denies a request if a topic is not granted, even if its Authenticator ignores topics.
func TestTopicsThatAreNotGrantedAreDenied(t *testing.T) {
	t.Parallel()
	hub := &stream.Hub{Logger: slog.New(slog.DiscardHandler)} // has not begun, so it would tell the client to retry later
	h := Handler{Hub: hub, Logger: hub.Logger, Authenticate: func(*http.Request) (stream.Grant, error) {
		return stream.Grant{User: "alice", Groups: []string{"team:7", "ticket:42"}}, nil
	}}
	for query, want := range map[string]struct {
		status int
		body   string
	}{
		"topic=team:8":                   {403, `the topic "team:8" was not granted` + "\n"},
		"topic=ticket:42&topic=room:%22": {403, `the topic "room:\"" was not granted` + "\n"},
		"topic=alice":                    {403, `the topic "alice" was not granted` + "\n"},
		"topic=":                         {400, "a topic is empty\n"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, requestTo(t, query))
		if w.Code != want.status || w.Body.String() != want.body {
			t.Errorf("%s: got %d, %q, want %+v", query, w.Code, w.Body, want)
		}
	}
	if err := checkGranted([]string{"team:7", "ticket:42"}, stream.Grant{User: "alice", Groups: []string{"team:7", "ticket:42"}}); err != nil {
		t.Errorf("two topics that are granted: got %v, want no error", err)
	}
}

// The app receives the topics of a request. A cached answer opens no stream with other topics. If the answer to a
// renewal does not name a topic again, the stream ends.
func TestTheAppGrantsTopics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeApp(nil)
		withdrawn := ""
		a.answer = func(string) string { // grants each topic that it is asked for, except the one in the variable withdrawn
			groups := []string{"team:7"}
			for topic := range strings.SplitSeq(a.last.Load().Get("Rowcast-Topics"), ",") {
				if topic, err := url.PathUnescape(topic); err == nil && topic != withdrawn && topic != "" {
					groups = append(groups, topic)
				}
			}
			return acceptance("alice", 100, groups...)
		}
		for i, tt := range []struct {
			query, header string
			want          []string
		}{
			{"", "", []string{"alice", "team:7"}},
			{"topic=ticket:42&topic=room:7", "room:7,ticket:42", []string{"alice", "room:7", "team:7", "ticket:42"}},
			{"topic=ticket:42", "ticket:42", []string{"alice", "team:7", "ticket:42"}},
			{"topic=a:%2c%c3%a9%20%25", "a:%2C%C3%A9%20%25", []string{"a:,é %", "alice", "team:7"}},
		} {
			grant, err := a.Authenticate(requestTo(t, tt.query, "Cookie", "session", "Rowcast-Topics", "secret:1"))
			if err != nil || !slices.Equal(grant.Recipients(), tt.want) {
				t.Errorf("%s: got %q, %v, want %q", tt.query, grant.Recipients(), err, tt.want)
			}
			if got := a.last.Load().Get("Rowcast-Topics"); got != tt.header || a.requests.Load() != int32(i+1) {
				t.Errorf("%s: the app received the topics %q after %d requests, want %q after %d", tt.query, got, a.requests.Load(), tt.header, i+1)
			}
		}
		grant, err := a.Authenticate(requestTo(t, "topic=ticket:42", "Cookie", "session"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []bool{true, false} {
			if !want {
				withdrawn = "ticket:42"
			}
			time.Sleep(100 * time.Second)
			_, ok := grant.Renew(t.Context())
			if got := a.last.Load().Get("Rowcast-Topics"); ok != want || got != "ticket:42" {
				t.Errorf("topic withdrawn: %v; Renew returned %v, and the app received the topics %q, want %v and ticket:42", !want, ok, got, want)
			}
		}
	})
}

// A Public gives a client without a credential the public topics that it asks for. It never accepts a wrong credential,
// other topics without a credential, or a topic that could be the id of a user.
func TestPublic(t *testing.T) {
	t.Parallel()
	tokens, sign := newTokens(t)
	alice := []string{"Authorization", "Bearer " + sign(jwt.MapClaims{"sub": "alice", "groups": []string{"team:7"}})}
	wrong := []string{"Authorization", "Bearer " + sign(jwt.MapClaims{"sub": "alice", "exp": 1})}
	app := newFakeApp(func(cookie string) string {
		if cookie != "alice" {
			return "401"
		}
		return acceptance("alice", 100, "team:7")
	})
	uid := new(InsecureUID)
	tests := []struct {
		name    string
		by      Public
		query   string
		headers []string
		want    []string // the recipients
		status  int      // if the request is denied
	}{
		{"nothing", Public{Next: tokens.Authenticate}, "", nil, nil, 0},
		{"topics", Public{Next: tokens.Authenticate}, "topic=public:a&topic=public:b", nil, []string{"public:a", "public:b"}, 0},
		{"another topic", Public{Next: tokens.Authenticate}, "topic=public:a&topic=team:7", nil, nil, 401},
		{"a topic that only looks public", Public{Next: tokens.Authenticate}, "topic=public", nil, nil, 401},
		{"a topic in upper case", Public{Next: tokens.Authenticate}, "topic=PUBLIC:a", nil, nil, 401},
		{"a topic that could be a user", Public{Next: tokens.Authenticate, Mark: "/"}, "topic=public:a", nil, nil, 403},
		{"a topic with another mark", Public{Next: tokens.Authenticate, Mark: "/"}, "topic=public:/a", nil, []string{"public:/a"}, 0},
		{"a wrong token", Public{Next: tokens.Authenticate}, "topic=public:a", wrong, nil, 401},
		{"a wrong cookie", Public{Next: tokens.Authenticate}, "", []string{"Cookie", "session=x"}, nil, 401},
		{"another cookie", Public{Next: tokens.Authenticate}, "", []string{"Cookie", "theme=dark"}, nil, 0},
		{"a page of another origin", Public{Next: tokens.Authenticate}, "", []string{"Sec-Fetch-Site", "cross-site"}, nil, 403},
		{"a token", Public{Next: tokens.Authenticate}, "topic=public:a", alice, []string{"alice", "public:a", "team:7"}, 0},
		{"a uid in the URL", Public{Next: tokens.Authenticate}, "uid=alice", nil, nil, 400},
		{"no app session", Public{Next: app.Authenticate}, "topic=public:a", nil, []string{"public:a"}, 0},
		{"an app session", Public{Next: app.Authenticate}, "topic=public:a", []string{"Cookie", "alice"}, []string{"alice", "public:a", "team:7"}, 0},
		{"a session that the app does not know", Public{Next: app.Authenticate}, "topic=public:a", []string{"Cookie", "x"}, nil, 401},
		{"no uid", Public{Next: uid.Authenticate}, "topic=public:a", nil, []string{"public:a"}, 0},
		{"an empty uid", Public{Next: uid.Authenticate}, "uid=", nil, nil, 401},
		{"a uid", Public{Next: uid.Authenticate}, "uid=bob&topic=public:a&topic=room:7", nil, []string{"bob", "public:a", "room:7"}, 0},
		{"public streams only", Public{}, "topic=public:a", alice, []string{"public:a"}, 0},
		{"public streams only, another topic", Public{}, "topic=team:7", alice, nil, 401},
		{"public streams only, another origin", Public{}, "", []string{"Sec-Fetch-Site", "cross-site"}, nil, 403},
	}
	for _, tt := range tests {
		grant, err := tt.by.Authenticate(requestTo(t, tt.query, tt.headers...))
		denial, _ := errors.AsType[Denial](err)
		if got := grant.Recipients(); !slices.Equal(got, tt.want) || denial.Status != tt.status || (err == nil) != (tt.status == 0) {
			t.Errorf("%s: got the recipients %q, the status %d and the error %v, want %q and %d (0 means no error)", tt.name, got, denial.Status, err, tt.want, tt.status)
		}
		const begin = `the topic "team:7" needs a credential, because without one only topics that begin with "public:" are granted: `
		if tt.name == "another topic" && !strings.HasPrefix(denial.Reason, begin) {
			t.Errorf("%s: got %q, want %q at the beginning", tt.name, denial.Reason, begin)
		}
	}
}
