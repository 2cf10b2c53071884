package main_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"rowcast/sql/dbtest"
)

// tail ends with an error after an answer that will not change, such as 401. It does not follow redirects, so that a
// token is not sent to another address.
func TestTailIsRefused(t *testing.T) {
	t.Parallel()
	h := serve(t, dbtest.Database(t))
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/403":
			http.Error(w, "not\nyou", http.StatusForbidden)
		case "/404":
			http.NotFound(w, r)
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/302":
			http.Redirect(w, r, "/elsewhere?secret", http.StatusFound)
		case "/308":
			http.Redirect(w, r, "http://elsewhere.invalid/secret", http.StatusPermanentRedirect)
		case "/elsewhere":
			t.Errorf("tail followed a redirect, with the Authorization %q", r.Header.Get("Authorization"))
		}
	}))
	t.Cleanup(other.Close)
	const notHere = "; there is no rowcast at this URL, or its path is wrong: the stream of rowcast serve is at /events, unless --events-path sets another path"
	tests := []struct {
		url, want string
	}{
		{h.url + "/events", h.url + "/events answered 401 Unauthorized: uid is missing: open /events?uid=alice"},
		{h.url + "/stream?token=secret", h.url + "/stream answered 404 Not Found: not found: the stream is at /events"},
		{other.URL + "/404", other.URL + "/404 answered 404 Not Found: 404 page not found" + notHere},
		{h.url + "/healthz", h.url + `/healthz is not an event stream: its content type is "text/plain; charset=utf-8"`},
		{other.URL + "/403", other.URL + `/403 answered 403 Forbidden: not\u000ayou`},
		{other.URL + "/204", other.URL + "/204 answered 204 No Content"},
		{other.URL + "/302", other.URL + "/302 answered 302 Found: rowcast tail follows no redirect, because it could send a token to another address; give the final URL"},
		{other.URL + "/308", other.URL + "/308 answered 308 Permanent Redirect: rowcast tail follows no redirect, because it could send a token to another address; give the final URL"},
	}
	for _, tt := range tests {
		code, stdout, stderr := run(t, nil, "tail", "--url", tt.url, "--token", "secret")
		if want := "rowcast: " + tt.want + "\n"; code != 1 || stdout != "" || stderr != want {
			t.Errorf("%s: got %d, %q, %q, want 1, \"\", %q", tt.url, code, stdout, stderr, want)
		}
	}
}

// If tail was started without --uid and --token, and the hub answers 401, the error names these flags.
func TestTailWithoutUser(t *testing.T) {
	t.Parallel()
	h := serve(t, dbtest.Database(t))
	code, stdout, stderr := run(t, nil, "tail", "--url", h.url+"/events")
	want := "rowcast: " + h.url + "/events answered 401 Unauthorized: uid is missing: open /events?uid=alice; " +
		"give --token, or --uid if the hub runs with --insecure-uid\n"
	if code != 1 || stdout != "" || stderr != want {
		t.Errorf("got %d, %q, %q, want 1, \"\", %q", code, stdout, stderr, want)
	}
}
