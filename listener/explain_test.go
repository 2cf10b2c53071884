package listener_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/sql/dbtest"
)

// A node is one step of a query plan, as EXPLAIN (FORMAT JSON) prints it.
type node struct {
	Type     string   `json:"Node Type"`
	SortedBy []string `json:"Sort Key"`
	Relation string   `json:"Relation Name"`
	Rows     float64  `json:"Actual Rows"`
	Loops    float64  `json:"Actual Loops"`
	Time     float64  `json:"Actual Total Time"`
	Filtered float64  `json:"Rows Removed by Filter"`
	Hit      int      `json:"Shared Hit Blocks"`
	Read     int      `json:"Shared Read Blocks"`
	Plans    []node
}

// readers returns the nodes of the plan that read a relation.
func (n node) readers(relation string) (found []node) {
	if n.Relation == relation {
		found = append(found, n)
	}
	for _, child := range n.Plans {
		found = append(found, child.readers(relation)...)
	}
	return found
}

func (n node) sorts() (found []node) {
	if n.Type == "Sort" {
		found = append(found, n)
	}
	for _, child := range n.Plans {
		found = append(found, child.sorts()...)
	}
	return found
}

// The queries read little more than the new rows, whatever the size of the table is. The table has no statistics in
// this test, because the statistics of a table that grows fast may be missing.
func TestPlansDoNotDependOnTheTable(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	// UNLOGGED makes the inserts faster. Without autovacuum, the table gets no statistics.
	exec(t, conn, "ALTER TABLE rowcast.notifications SET UNLOGGED, SET (autovacuum_enabled = off)")
	session, err := newListener(t, dsn).Connect(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close(context.Background()) })
	for _, size := range []int{0, 1_000_000} {
		if size > 0 {
			fillHistory(t, conn, size)
		}
		for _, inFlight := range []int{0, 300} {
			t.Run(fmt.Sprintf("%d rows, %d in flight", size, inFlight), func(t *testing.T) {
				now := present(t, conn)
				recently := recent(now, inFlight)
				for _, query := range []string{listener.FetchQuery, listener.FetchList} {
					checkPlan(t, session, query, listener.QueryArgs(query, recently, nil, 512), inFlight)
				}
				for _, query := range []string{listener.NearQuery, listener.NearList} {
					checkPlan(t, session, query, listener.QueryArgs(query, recent(now, 0), nil, 512), 0)
				}
				for _, query := range []string{listener.ReplayQuery, listener.ReplayList} {
					args := listener.QueryArgs(query, recently, &now, 512, []string{"*", "team:7", "user1", "user2"})
					checkPlan(t, session, query, args, 4*inFlight)
					// A replay from the beginning of the table reads little more than the rows of a page, too.
					args = listener.QueryArgs(query, cursor.Cursor{Xmax: cursor.First}, &now, 10, []string{"*", "user1"})
					checkPlan(t, session, query, args, 0)
				}
			})
		}
	}
}

// From a cursor in the middle of a large transaction, a query does not read the rows before the cursor again.
func TestPlansInALargeTransaction(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	before := present(t, conn)
	exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', to_jsonb(i) FROM generate_series(1, 100000) i")
	session, err := newListener(t, dsn).Connect(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close(context.Background()) })
	now := present(t, conn)
	half := before.After(cursor.Row{Xid: now.AnchorXid(), ID: 1000}, now)
	checkPlan(t, session, listener.FetchQuery, listener.QueryArgs(listener.FetchQuery, half, nil, 512), 0)
	checkPlan(t, session, listener.ReplayQuery, listener.QueryArgs(listener.ReplayQuery, half, &now, 512, []string{"*", "alice"}), 0)
}

// fillHistory inserts rows for 900 users and for everyone. A transaction number belongs to a hundred rows at most. The
// server has assigned all these numbers before.
func fillHistory(t *testing.T, conn *pgx.Conn, rows int) {
	t.Helper()
	for range (rows/100 + 4999) / 5000 { // makes the server assign enough transaction numbers
		exec(t, conn, "DO $$ BEGIN FOR i IN 1..5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
	}
	exec(t, conn, "ALTER TABLE rowcast.notifications DISABLE TRIGGER disown")
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data, xid)
		SELECT CASE WHEN i % 10 > 0 THEN 'user' || i % 1000 ELSE '*' END, '{"msg": "Bob liked your tracker"}',
			((SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint) - 1 - i / 100)::text::xid8
		FROM generate_series(1, $1::int) i`, rows)
	exec(t, conn, "ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER disown")
}

// present returns the cursor of a reader that has seen all committed rows.
func present(t testing.TB, conn *pgx.Conn) cursor.Cursor {
	t.Helper()
	c, err := cursor.Parse(one[string](t, conn, "SELECT rowcast.cursor()"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// recent returns a cursor whose xmax is two below the xmax of now, but at least cursor.First. At most inFlight
// transactions are in flight.
func recent(now cursor.Cursor, inFlight int) cursor.Cursor {
	c := cursor.Cursor{Xmax: max(now.Xmax-2, cursor.First)}
	for i := inFlight; i > 0; i-- {
		if xid := int(c.Xmax) - 2*i; xid >= cursor.First {
			c.Xip = append(c.Xip, uint64(xid))
		}
	}
	return c
}

// literals returns arguments as SQL literals, joined by commas.
func literals(args []any) string {
	var texts []string
	for _, arg := range args {
		switch arg := arg.(type) {
		case *string:
			if arg == nil {
				texts = append(texts, "NULL")
				continue
			}
			texts = append(texts, "'"+*arg+"'")
		case []string:
			texts = append(texts, "'{"+strings.Join(arg, ",")+"}'")
		default:
			texts = append(texts, fmt.Sprintf("'%v'", arg))
		}
	}
	return strings.Join(texts, ", ")
}

// checkPlan runs a query and checks that it reads the table only by short scans of an index.
func checkPlan(t *testing.T, session *pgx.Conn, query string, args []any, inFlight int) {
	t.Helper()
	plan, explained := explain(t, session, query, args)
	for _, sort := range plan.sorts() { // a replay may sort the few rows that its subqueries return
		most := 4*512 + 4*inFlight
		isReplay := query == listener.ReplayQuery || query == listener.ReplayList
		if !isReplay || sort.Plans[0].Rows > float64(most) {
			t.Errorf("the query sorts %v rows by %s, want no sort in a fetch, and at most %d rows in a replay", sort.Plans[0].Rows, sort.SortedBy, most)
		}
	}
	scans := plan.readers("notifications")
	least := 3
	if query == listener.NearQuery || query == listener.NearList {
		least = 1
	}
	if len(scans) < least {
		t.Fatalf("the plan has %d scans of the table, want at least %d", len(scans), least)
	}
	for _, scan := range scans {
		if scan.Type != "Index Scan" && scan.Type != "Index Only Scan" {
			t.Errorf("the table is read by a %s, want an index scan", scan.Type)
		}
		if scan.Filtered > 0 {
			t.Errorf("a scan has removed %v rows by its filter, want 0", scan.Filtered)
		}
	}
	// The limit allows a few blocks for each scan, for each transaction in flight and for each row that was found, and
	// 400 blocks for everything else.
	limit := 4*(len(scans)+inFlight) + 2*int(plan.Rows) + 400
	if blocks := plan.Hit + plan.Read; blocks > limit {
		t.Errorf("read %d blocks for %v rows, want at most %d:\n%s", blocks, plan.Rows, limit, explained)
	}
	if strings.Contains(explained, `"Seq Scan"`) || strings.Contains(explained, "Bitmap") || strings.Contains(explained, "Parallel Aware\": true") {
		t.Errorf("the plan has a sequential, bitmap or parallel scan, want only index scans:\n%s", explained)
	}
}

// explain runs a query as the listener does, prepared and with a generic plan. It returns the plan, and the text of the
// plan.
func explain(t *testing.T, session *pgx.Conn, query string, args []any) (plan node, explained string) {
	t.Helper()
	exec(t, session, "DEALLOCATE ALL")
	if _, err := session.PgConn().Exec(limited(t), "PREPARE query AS "+query).ReadAll(); err != nil {
		t.Fatal(err)
	}
	explain := "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE query"
	if len(args) > 0 {
		explain += "(" + literals(args) + ")"
	}
	if err := session.QueryRow(limited(t), explain, pgx.QueryExecModeSimpleProtocol).Scan(&explained); err != nil {
		t.Fatal(err)
	}
	var plans []struct{ Plan node }
	if err := json.Unmarshal([]byte(explained), &plans); err != nil {
		t.Fatal(err)
	}
	return plans[0].Plan, explained
}

// The queries return transactions in the numeric order of their numbers: 9 comes before 10.
func TestOrderOfTransactions(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	for _, xid := range []string{"100", "9", "10", "99"} {
		exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data, xid) VALUES ('alice', '1', $1::text::xid8)", xid)
	}
	session, err := newListener(t, dsn).Connect(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close(context.Background()) })
	now := present(t, conn)
	for _, from := range []cursor.Cursor{{Xmax: cursor.First}, {Xmax: 200, Xip: []uint64{9, 10, 99, 100}}, {Xmax: 99, Xip: []uint64{9, 10}}} {
		for query, extra := range map[string][]any{
			listener.FetchQuery: nil, listener.FetchList: nil, listener.NearQuery: nil, listener.NearList: nil, listener.ReplayQuery: {[]string{"alice"}}, listener.ReplayList: {[]string{"alice"}},
		} {
			args := listener.QueryArgs(query, from, nil, 512, extra...)
			if len(extra) > 0 {
				args = listener.QueryArgs(query, from, &now, 512, extra...)
			}
			rows, err := session.Query(limited(t), query, args...)
			if err != nil {
				t.Fatal(err)
			}
			all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) ([]any, error) { return row.Values() })
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, values := range all[1:] {
				got = append(got, fmt.Sprint(values[2]))
			}
			if want := []string{"9", "10", "99", "100"}; !slices.Equal(got, want) {
				t.Errorf("from %v: got transactions %s, want %s", from, got, want)
			}
		}
	}
}
