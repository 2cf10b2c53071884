package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// Who names an unknown key and leaves at once keeps nobody from getting the keys, for which others may be waiting.
func TestKeysAreReadThoughTheClientLeaves(t *testing.T) {
	t.Parallel()
	ctx, leave := context.WithCancel(t.Context())
	publish := func(kid string) string {
		return fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`, kid)
	}
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := asked.Add(1)
		if n == 2 {
			leave()
		}
		_, _ = fmt.Fprint(w, publish(fmt.Sprint("key ", n)))
	}))
	t.Cleanup(server.Close)
	j := newJWKS(server.URL, slog.New(slog.DiscardHandler))
	j.read(t.Context())
	if _, err := j.KeyRead(ctx, "key 2"); err != nil {
		t.Errorf("got %v, want the new key", err)
	}
}
