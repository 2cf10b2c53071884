package listener

import (
	"fmt"

	"rowcast/listener/cursor"
	"rowcast/sql"
)

// fetchQuery reads the rows that the cursor ($1 half-told transaction, $2 last row told of it, $3 xip, $4 where what is wholly
// unseen begins) has not seen and the snapshot $5 shows, or if that is NULL the present one, in the order in which they are told.
// Each arm is one ordered index scan (ordered by n.xid: xid alone would be the output column, a text): as a single condition with
// OR the planner would read the whole table. The last arm is bounded above, too, as rows with higher numbers than this server has
// assigned (restored, forged) would be walked by every fetch.
var fetchQuery = newPageQuery(noState, fetchArms, "$7", "$8")

func fetchArms(c columns) string {
	return `
UNION ALL (SELECT ` + c.of(1) + ` FROM rowcast.notifications n
	WHERE xid = $1::text::xid8 AND id > $2 AND pg_visible_in_snapshot(xid, ` + shown + `) AND (` + assigned + `)
	ORDER BY n.xid, n.id LIMIT $6)
UNION ALL (SELECT ` + c.of(2) + ` FROM rowcast.notifications n
	WHERE xid = ANY (ARRAY(SELECT x FROM unnest($3::text::xid8[]) x WHERE pg_visible_in_snapshot(x, ` + shown + `)))
	AND (` + assigned + `)
	ORDER BY n.xid, n.id LIMIT $6)
UNION ALL (SELECT ` + c.of(3) + ` FROM rowcast.notifications n
	WHERE xid >= $4::text::xid8 AND xid < pg_snapshot_xmax(` + shown + `)
	AND pg_visible_in_snapshot(xid, ` + shown + `) AND (` + assigned + `)
	ORDER BY n.xid, n.id LIMIT $6)`
}

// assigned leaves out rows whose number this server had not assigned when they were written.
var assigned = sql.Assigned("n")

// fetch reads a page of what came after the cursor. With the snapshot of an earlier page it goes on with that page's batch.
// The query is fetchQuery or lookQuery.
func (r *reader) fetch(query pageQuery, from cursor.Cursor, epoch cursor.Tag, snapshot *cursor.Cursor, now level) (page, error) {
	p, err := r.page(request{query: query, from: from, epoch: epoch, snapshot: snapshot, level: now})
	if err != nil {
		return page{}, fmt.Errorf("fetch: %w", err)
	}
	return p, nil
}
