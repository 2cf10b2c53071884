package listener_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/sql/dbtest"
)

// silentHost starts a server that accepts connections and sends nothing, like a server on a frozen machine. It returns
// the port of the server.
func silentHost(t *testing.T) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// If a connection string has several hosts, each host has its own time to answer. A silent host does not use up the
// time of the primary after it.
func TestSilentHostIsPassedOver(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	primary, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	query := url.Values{
		"host": {"127.0.0.1," + primary.Host}, "port": {fmt.Sprintf("%s,%d", silentHost(t), primary.Port)},
		"target_session_attrs": {"read-write"}, "sslmode": {"disable"},
	}
	either := "postgres://" + primary.User + "@/" + primary.Database + "?" + query.Encode()
	l := newListener(t, either)
	l.Timeout = 4 * time.Second
	if err := l.Preflight(limited(t)); err != nil {
		t.Errorf("Preflight: %v", err)
	}
	r := listen(t, either, func(l *listener.Listener) { l.Timeout = 4 * time.Second })
	insert(t, connect(t, dsn), "1")
	wantData(t, r.rows(t, 1), `"1"`)
	replayer, err := r.NewReplayer(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if valid, err := replayer.IsValid(ctx, r.last.Cursor, r.last.Cursor); err != nil || !valid {
		t.Errorf("IsValid: got %t and error %v, want true", valid, err)
	}
}
