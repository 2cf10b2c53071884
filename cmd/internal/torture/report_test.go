package torture_test

import (
	"fmt"
	"strings"
	"time"
)

// report reports the faults of a client with the context that is needed to find their cause.
func (t *torture) report(truth *truth, c *client, faults []fault) {
	const most = 3 // the number of faults of each kind that are reported in full
	count := map[string]int{}
	for _, f := range faults {
		if count[f.kind]++; count[f.kind] <= most {
			t.Errorf("%s (%s), seed %d: %s: %s\n%s", c.name, c.record.uid, t.seed, f.kind, f.text, c.around(truth, f))
		}
	}
	for kind, n := range count {
		if n > most {
			t.Errorf("%s (%s): %d more faults of the kind %s", c.name, c.record.uid, n-most, kind)
		}
	}
}

// around describes the deliveries and the connections of a client before and after a fault.
func (c *client) around(truth *truth, f fault) string {
	var b strings.Builder
	at := f.at
	if at < 0 {
		at = c.whenLost(truth, f)
	}
	first := -1
	for i := max(0, at-6); i < min(len(c.record.deliveries), at+7); i++ {
		d := c.record.deliveries[i]
		if first < 0 || d.visit > first {
			for v := max(first+1, d.visit-8); v <= d.visit; v++ {
				c.describe(&b, v)
			}
			first = d.visit
		}
		row := truth.rows[d.key]
		fmt.Fprintf(&b, "    %d. %v row %v of xid %d, id: %s\n", i, d.at.Round(time.Millisecond), d.key, row.Xid, d.cursor)
	}
	if first >= 0 && first+1 < len(c.visits) {
		c.describe(&b, first+1)
	}
	return b.String()
}

func (c *client) describe(b *strings.Builder, number int) {
	v := c.visits[number]
	fmt.Fprintf(b, "  visit %d, %v to %v, %s, %d deliveries, ended by %q, from %s to %s\n",
		number, v.began.Round(time.Millisecond), v.ended.Round(time.Millisecond), c.hubs[v.hub].name, v.delivered, v.how, v.from, v.to)
}

// whenLost returns the index of the delivery before which the lost row should have arrived. That is the first delivery
// of a transaction that began after the transaction of the lost row had ended. If there is none, whenLost returns the
// number of deliveries.
func (c *client) whenLost(truth *truth, f fault) int {
	for i, d := range c.record.deliveries {
		if truth.transactions[d.key.tx].began > truth.transactions[f.row.tx].ended {
			return i
		}
	}
	return len(c.record.deliveries)
}
