package main_test

import (
	"bufio"
	"encoding/json"
	"testing"

	"rowcast/sql/dbtest"
)

// When a client stops reading, its backlog grows until the hub closes the stream. When the client reads again, it
// resumes by itself and receives all rows once and in order.
func TestResumeAfterAFullBacklog(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn, "--backlog", "64KiB", "--retry", "10ms")
	tail := command(t, dbtest.Home(t), "tail", "--json", "--url", h.url+"/events", "--uid", "alice")
	out, err := tail.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said := newOutput()
	tail.Stderr = said
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tail.Process.Kill(); _ = tail.Wait() }()
	said.await(t, "connected")

	db, rows := benchConnect(t, dsn), 0
	more := func() {
		const insert = `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', jsonb_build_object('n', $1::int, 'x', repeat('x', 200000)))`
		if _, err := db.Exec(t.Context(), insert, rows); err != nil {
			t.Fatal(err)
		}
		rows++
	}
	more()
	if err := dbtest.Suspend(tail.Process.Pid); err != nil {
		t.Fatal(err)
	}
	for metric(t, h.url, `rowcast_overflows_total\{reason="backlog"\}`) == 0 {
		if more(); rows > 500 {
			t.Fatalf("after %d rows of 200 KB, the backlog has not overflowed", rows)
		}
	}
	if err := dbtest.Resume(tail.Process.Pid); err != nil {
		t.Fatal(err)
	}
	more()
	lines := bufio.NewReaderSize(out, 1<<20)
	for want := range rows {
		var event struct{ Data struct{ N int } }
		line, err := lines.ReadSlice('\n')
		if err == nil {
			err = json.Unmarshal(line, &event)
		}
		if err != nil || event.Data.N != want {
			t.Fatalf("got row %d of %d (error: %v), want row %d and no error", event.Data.N, rows, err, want)
		}
	}
	said.await(t, "(?s)connected.*connected")
	t.Logf("%d rows of 200 KB; overflows: %v", rows, metric(t, h.url, `rowcast_overflows_total\{reason="backlog"\}`))
}
