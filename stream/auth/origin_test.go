package auth_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"rowcast/stream/auth"
)

// IsLoopbackOrigin accepts spellings of an origin on this machine, and rejects similar texts.
func TestIsLoopbackOrigin(t *testing.T) {
	t.Parallel()
	for origin, want := range map[string]bool{
		"http://localhost": true, "https://localhost": true, "http://localhost:3000": true, "HTTP://LOCALHOST:3000": true,
		"http://127.0.0.1": true, "http://127.0.0.1:65535": true, "https://127.255.0.9:3000": true,
		"http://[::1]": true, "https://[::1]:3000": true,

		"": false, "null": false, "localhost": false, "localhost:3000": false, "//localhost": false, "http://": false, "http:localhost": false,
		"file://": false, "ftp://localhost": false, "ws://localhost": false, "chrome-extension://localhost": false,
		"http://localhost/": false, "http://localhost/path": false, "http://localhost?q": false, "http://localhost#f": false,
		"http://user@localhost": false, "http://localhost@evil.example": false, "http://localhost:x": false,
		"http://localhost.evil.example": false, "http://evil.localhost": false, "http://localhost.": false,
		"http://127.0.0.1.evil.example": false, "http://127.1": false, "http://2130706433": false, "http://0.0.0.0": false, "http://[::]": false,
		"http://128.0.0.1": false, "http://10.0.0.1": false, "http://[::2]": false, "http://[fe80::1]": false, "http://evil.example": false,
		"http://localhost http://evil.example": false, "http://evil.example http://localhost": false, "http://local\u017fhost": false,
	} {
		if got := auth.IsLoopbackOrigin(origin); got != want {
			t.Errorf("%q: got %v, want %v", origin, got, want)
		}
	}
}

// An origin is compared without regard to case, in the request and in Origins.
func TestOriginsInAnyCase(t *testing.T) {
	t.Parallel()
	p := auth.Public{Origins: []string{"https://App.Example"}}
	for origin, want := range map[string]bool{
		"https://app.example": true, "https://App.Example": true, "HTTPS://APP.EXAMPLE": true,
		"http://app.example": false, "https://other.example": false, "": false,
	} {
		r := httptest.NewRequest(http.MethodGet, "/events", nil)
		r.Header.Set("Origin", origin)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		if _, err := p.Authenticate(r); (err == nil) != want {
			t.Errorf("%q: got the error %v, want %v that the page may open a stream", origin, err, want)
		}
	}
}
