package listener_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// The listener delivers rows in UTF-8, even if the encoding of the database and its client_encoding are LATIN1.
func TestOtherEncodings(t *testing.T) {
	t.Parallel()
	server := dbtest.Empty(t)
	admin := connect(t, server)
	for _, poll := range []bool{false, true} {
		t.Run(fmt.Sprintf("poll %v", poll), func(t *testing.T) {
			name := fmt.Sprintf("latin_%d_%v", admin.PgConn().PID(), poll)
			exec(t, admin, "CREATE DATABASE "+name+" ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
			t.Cleanup(func() {
				cleanup, err := pgx.Connect(context.Background(), server)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = cleanup.Close(context.Background()) }()
				if _, err := cleanup.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
					t.Error(err)
				}
			})
			exec(t, admin, "ALTER DATABASE "+name+" SET standard_conforming_strings = off")
			exec(t, admin, "ALTER DATABASE "+name+" SET client_encoding = 'LATIN1'")
			config, err := pgx.ParseConfig(server)
			if err != nil {
				t.Fatal(err)
			}
			dsn := fmt.Sprintf("host=%s port=%d user=%s dbname=%s", config.Host, config.Port, config.User, name)
			if _, _, err := sql.Migrate(limited(t), dsn); err != nil {
				t.Fatal(err)
			}
			r := listen(t, dsn, func(l *listener.Listener) { l.PollOnly = poll })
			exec(t, connect(t, dsn+" client_encoding=UTF8"), "INSERT INTO rowcast.notifications (recipient, data) VALUES ($1, to_jsonb($2::text))", "ünï", "é")
			if got := r.rows(t, 1)[0]; got.Recipient != "ünï" || string(got.Data) != `"é"` {
				t.Errorf("got data %q for recipient %q, want %q for %q", got.Data, got.Recipient, `"é"`, "ünï")
			}
		})
	}
}
