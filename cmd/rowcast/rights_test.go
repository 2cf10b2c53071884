package main_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// login creates a role that can log in. It returns the name of the role and a database URL for it.
func login(t *testing.T, dsn, name string) (role, roleDSN string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	role = name + " of " + strings.TrimPrefix(u.Path, "/")
	runSQL(t, dsn, `CREATE ROLE "`+role+`" LOGIN PASSWORD 'x'`)
	t.Cleanup(func() { dropRole(t, dsn, role) })
	u.User = url.UserPassword(role, "x")
	return role, u.String()
}

// With the rights that migrate grants, and without the right of PUBLIC to execute functions of the schema, the app
// inserts rows and reads the cursor for a page. The hub begins an epoch, delivers rows, replays rows from the cursor of
// the page, and deletes old rows. rowcast doctor finds no missing right.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Cluster(t).DSN("postgres") // a server of its own, because open transactions of other tests would delay the deletion
	migrate(t, dsn)
	runSQL(t, dsn, "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA rowcast FROM PUBLIC") // as some administrators do
	appRole, app := login(t, dsn, "App")
	hubRole, hub := login(t, dsn, "Hub")
	want := "The schema rowcast is up to date: version " + schemaVersion + ".\nThe role \"" + appRole + "\" has the rights of an app.\nThe role \"" + hubRole + "\" has the rights of a hub.\n"
	for range 2 {
		code, stdout, stderr := run(t, nil, "migrate", "--app-role", appRole, "--hub-role", hubRole, "--database-url", dsn)
		if code != 0 || stdout != want || stderr != "" {
			t.Fatalf("got %d, %q, %q, want 0, %q, \"\"", code, stdout, stderr, want)
		}
	}
	conn, err := pgx.Connect(t.Context(), app)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	const insert = `INSERT INTO rowcast.notifications (recipient, data, created_at) VALUES ('alice', $1, now() - $2::interval) RETURNING id`
	var id, cursor string
	send := func(data, age string) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), insert, data, age).Scan(&id); err != nil {
			t.Fatal(err)
		}
	}
	runSQL(t, dsn, "DELETE FROM rowcast.epoch") // as after a crash: the hub begins a new epoch
	send(`"old"`, "2 hours")
	send(`"newest"`, "0") // so that the row before is not the newest one, which is never deleted
	h := serve(t, hub, "--retain", "1h", "--memory", "1B", "--no-notify-messages")
	askUntil(t, h.url+"/metrics", `(?m)^rowcast_park_lock_acquired_total 1$`)
	if err := conn.QueryRow(t.Context(), "SELECT rowcast.cursor()").Scan(&cursor); err != nil {
		t.Fatal(err)
	}
	send(`"missed"`, "0")
	fresh := h.tail(t, "alice")
	missed := h.tail(t, "alice", "--last-event-id", cursor)
	send(`"live"`, "0")
	fresh.out.await(t, `"data":"live"`)
	missed.out.await(t, `(?s)"data":"missed".*"data":"live"`)
	askFor(t, time.Minute+waitLimit, h.url+"/metrics", `(?m)^rowcast_deleted_rows_total 1$`)
	code, found, out := examine(t, hub)
	if code != 0 || !strings.HasPrefix(found["rights"], "ok ") || !strings.HasPrefix(found["retention"], "ok ") {
		t.Errorf("the doctor: got exit code %d, %s, want 0 and ok for rights and retention", code, out)
	}
	if got := h.err.String(); strings.Contains(got, "WARN") || strings.Contains(got, "ERROR") {
		t.Errorf("the hub has logged a warning or an error: %s", got)
	}
	if id != "4" {
		t.Errorf("the app got the id %s for its last row, want 4", id)
	}
}

func TestMigrateGrants(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	code, stdout, stderr := run(t, nil, "migrate", "--hub-role", "no such role", "--database-url", dsn)
	if want := "rowcast: the role \"no such role\" does not exist: create it with CREATE ROLE \"no such role\" LOGIN\n"; code != 1 || stderr != want {
		t.Errorf("got %d, %q, %q, want 1 and %q on stderr", code, stdout, stderr, want)
	}
	role, _ := login(t, dsn, "Both")
	const both = ` gets the rights of a hub besides those of an app or a sender, so the app can read and delete the notifications of all users` + "\n"
	code, stdout, stderr = run(t, nil, "migrate", "--app-role", role, "--hub-role", role, "--database-url", dsn)
	if want := `rowcast: the role "` + role + `"` + both; code != 0 || stderr != want {
		t.Errorf("got %d, %q, %q, want 0 and %q on stderr", code, stdout, stderr, want)
	}
	if _, _, stderr := run(t, nil, "migrate", "--print", "--app-role", "a", "--app-role", "b", "--hub-role", "b"); stderr != `rowcast: the role "b"`+both {
		t.Errorf("--print: got %q, want %q", stderr, `rowcast: the role "b"`+both)
	}
	code, stdout, stderr = run(t, nil, "migrate", "--sender-role", role, "--database-url", dsn)
	if want := "The role \"" + role + "\" has the rights of a sender.\n"; code != 0 || !strings.HasSuffix(stdout, want) || stderr != "" {
		t.Errorf("--sender-role: got %d, %q, %q, want 0, %q at the end", code, stdout, stderr, want)
	}
	if _, _, stderr := run(t, nil, "migrate", "--print", "--sender-role", "b", "--hub-role", "b"); stderr != `rowcast: the role "b"`+both {
		t.Errorf("--print --sender-role: got %q, want a warning about the role b", stderr)
	}
	code, printed, _ := run(t, nil, "migrate", "--print", "--app-role", `a "quoted" one`, "--app-role", "b")
	want := "GRANT INSERT (id, recipient, event, data, created_at) ON rowcast.notifications TO \"a \"\"quoted\"\" one\";\n"
	if code != 0 || !strings.Contains(printed, want) || !strings.Contains(printed, "GRANT USAGE ON SCHEMA rowcast TO \"b\";\n") || !strings.HasSuffix(printed, ";\nCOMMIT;\n") {
		t.Errorf("got %d, %s, want 0, %s in the text, a GRANT USAGE for the role b, and COMMIT at the end", code, printed, want)
	}
}
