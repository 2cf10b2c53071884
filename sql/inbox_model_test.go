package sql_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// An inboxModel is the expected inbox of a user. It has sets of rows where the database has cursors and snapshots. In
// the comments, "all" is an operation on all rows up to a cursor.
type inboxModel struct {
	version       int64
	seen          map[int64]bool
	read, archive modelField
	kept          []modelChange // the changes that can be undone, the oldest first
}

// A modelField has the state "read", or the state "archived", of all rows.
type modelField struct {
	on     map[int64]bool  // the rows with the state
	own    map[int64]bool  // the rows that keep the state when "all" is undone, because an operation on ids has set it
	stamp  map[int64]int64 // the version of the last change of a row by an operation on ids, or by the undo of one
	all    map[int64]bool  // the rows for which "all" has set the state
	marked int64           // the version of the newest "all" that can be undone
}

type modelChange struct {
	version int64
	action  string
	ids     []int64 // the rows that have changed
	byAll   bool
	all     map[int64]bool // all and marked have the values of the modelField before the change
	marked  int64
}

// A modelOp is an operation of a device.
type modelOp struct {
	action string // an action of inbox_mark(), or "undo"
	ids    []int64
	byAll  bool
	undo   int64
	got    inboxChange
}

func newInboxModel(early []int64) *inboxModel {
	m := &inboxModel{seen: map[int64]bool{}}
	for _, f := range []*modelField{&m.read, &m.archive} {
		*f = modelField{map[int64]bool{}, map[int64]bool{}, map[int64]int64{}, map[int64]bool{}, 0}
	}
	for _, id := range early {
		m.seen[id], m.read.on[id] = true, true
	}
	return m
}

func (f modelField) clone() modelField {
	return modelField{maps.Clone(f.on), maps.Clone(f.own), maps.Clone(f.stamp), maps.Clone(f.all), f.marked}
}

func (m *inboxModel) clone() *inboxModel {
	return &inboxModel{m.version, maps.Clone(m.seen), m.read.clone(), m.archive.clone(), slices.Clone(m.kept)}
}

func (m *inboxModel) field(action string) *modelField {
	if strings.HasSuffix(action, "read") {
		return &m.read
	}
	return &m.archive
}

// apply does an operation and reports whether the version has changed.
func (m *inboxModel) apply(op modelOp) bool {
	next := m.version + 1
	written := false
	switch {
	case op.action == "undo":
		written = m.undo(op.undo, next)
	case op.action == "seen":
		for _, id := range op.ids {
			written = written || !m.seen[id]
			m.seen[id] = true
		}
	case strings.HasPrefix(op.action, "un"):
		f := m.field(op.action)
		for _, id := range op.ids {
			if f.on[id] {
				f.on[id], f.own[id], f.stamp[id], written = false, false, next, true
			}
		}
	default:
		written = m.set(op, next)
	}
	if written {
		m.version = next
	}
	return written
}

// set applies the actions read and archive, and reports whether the version changes.
func (m *inboxModel) set(op modelOp, next int64) (written bool) {
	f := m.field(op.action)
	change := modelChange{next, op.action, nil, op.byAll, maps.Clone(f.all), f.marked}
	for _, id := range op.ids {
		if !f.on[id] || op.action == "read" && !m.seen[id] {
			change.ids = append(change.ids, id)
		}
		if op.byAll {
			f.all[id] = true
		} else if !f.own[id] {
			f.own[id], f.stamp[id], written = true, next, true
		}
		f.on[id] = true
		m.seen[id] = m.seen[id] || op.action == "read"
	}
	if len(change.ids) == 0 {
		return written
	}
	if op.byAll {
		f.marked = next
	}
	m.kept = append(m.kept, change)
	m.kept = m.kept[max(0, len(m.kept)-10):]
	return true
}

func (m *inboxModel) undo(version, next int64) bool {
	i := slices.IndexFunc(m.kept, func(c modelChange) bool { return c.version == version })
	if i < 0 || !m.undoChange(m.kept[i], next) {
		return false
	}
	m.kept = slices.Delete(slices.Clone(m.kept), i, i+1)
	return true
}

// undoChange undoes a change, and reports whether anything was undone.
func (m *inboxModel) undoChange(c modelChange, next int64) (written bool) {
	f := m.field(c.action)
	if c.byAll {
		if f.marked != c.version {
			return false
		}
		f.all, f.marked = c.all, c.marked
		for _, id := range c.ids {
			f.on[id] = f.own[id]
		}
		return true
	}
	for _, id := range c.ids {
		if f.own[id] && f.stamp[id] == c.version && (f.marked < c.version || !f.all[id]) {
			f.on[id], f.own[id], f.stamp[id], written = false, false, next, true
		}
	}
	return written
}

// A modelList is a list that a device has loaded, with the ids of all rows for the user in its snapshot.
type modelList struct {
	page    inboxPage
	visible []int64
}

// A modelDevice does random operations and records them.
type modelDevice struct {
	visitor
	random *rand.Rand
	lists  []modelList
	ops    []modelOp
}

func (d *modelDevice) list() {
	tx, err := d.conn.BeginTx(dbtest.Context(d.t), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		d.t.Error(err)
		return
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	l := modelList{page: d.page(100, nil)}
	const visible = "SELECT coalesce(array_agg(id), '{}') FROM rowcast.notifications WHERE recipient IN ('alice', 'team:7', '*')"
	if err := tx.QueryRow(dbtest.Context(d.t), visible).Scan(&l.visible); err != nil {
		d.t.Error(err)
	}
	d.lists = append(d.lists, l)
}

// act does one random operation, or none if it has chosen undo and there is nothing to undo. "All" sometimes has the
// cursor of an old list.
func (d *modelDevice) act() {
	l := d.lists[len(d.lists)-1-d.random.IntN(min(3, len(d.lists)))]
	op := modelOp{action: []string{"seen", "read", "read", "unread", "archive", "unarchive", "undo", "undo"}[d.random.IntN(8)]}
	switch {
	case op.action == "undo":
		i := slices.IndexFunc(d.ops, func(op modelOp) bool { return op.got.Undo != nil })
		if i < 0 {
			return
		}
		if recent := len(d.ops) - 1 - d.random.IntN(min(5, len(d.ops))); d.ops[recent].got.Undo != nil {
			i = recent
		}
		op.undo, _ = strconv.ParseInt(*d.ops[i].got.Undo, 10, 64)
		op.got = d.undo(d.ops[i].got.Undo)
		op.got.Undo = nil
	case !strings.HasPrefix(op.action, "un") && d.random.IntN(3) == 0:
		op.byAll, op.ids = true, l.visible
		op.got = d.markAll(op.action, l.page.Cursor)
	default:
		for range 1 + d.random.IntN(4) {
			if len(l.visible) > 0 {
				op.ids = append(op.ids, l.visible[d.random.IntN(len(l.visible))])
			}
		}
		slices.Sort(op.ids)
		op.ids = slices.Compact(op.ids)
		op.got = d.mark(op.action, op.ids...)
	}
	d.ops = append(d.ops, op)
}

// write inserts rows in transactions that stay open for a while. They usually do not commit in the order of their
// numbers.
func write(t *testing.T, conns []*pgx.Conn, random *rand.Rand, rows int) {
	for i := range rows {
		conn := conns[random.IntN(len(conns))]
		if conn.PgConn().TxStatus() == 'I' {
			run(t, conn, "BEGIN")
		}
		send(t, conn, []string{"alice", "team:7", "*"}[i%3])
		if other := conns[random.IntN(len(conns))]; other.PgConn().TxStatus() != 'I' {
			run(t, other, "COMMIT")
		}
	}
	for _, conn := range conns {
		if conn.PgConn().TxStatus() != 'I' {
			run(t, conn, "COMMIT")
		}
	}
}

// Several devices do random operations at the same time, while transactions insert rows. The versions in the results
// give the order of the operations. Each list and its counts must equal the rows and the counts of the model at the
// version of the list.
func TestInboxModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Inbox(t)
			first := connect(t, dsn)
			early := []int64{send(t, first, "*"), send(t, first, "team:7")}
			send(t, first, "alice")
			var devices []*modelDevice
			for i := range uint64(3) {
				d := &modelDevice{visitor: visitor{t, connect(t, dsn), "alice", []string{"team:7"}}, random: rand.New(rand.NewPCG(seed, i))}
				d.visitor.list()
				d.list()
				devices = append(devices, d)
			}
			writers := []*pgx.Conn{connect(t, dsn), connect(t, dsn), connect(t, dsn)}
			var running sync.WaitGroup
			running.Go(func() { write(t, writers, rand.New(rand.NewPCG(seed, 9)), 60) })
			for _, d := range devices {
				running.Go(func() {
					for range 50 {
						d.act()
						d.list()
					}
				})
			}
			dbtest.Wait(t, running.Wait, "the devices and the writers")
			devices[0].list()
			checkModel(t, newInboxModel(early), devices)
		})
	}
}

// checkModel applies the operations of the devices to the model, and compares each list with the model.
func checkModel(t *testing.T, m *inboxModel, devices []*modelDevice) {
	t.Helper()
	var ops []modelOp
	var lists []modelList
	for _, d := range devices {
		ops, lists = append(ops, d.ops...), append(lists, d.lists...)
	}
	slices.SortStableFunc(lists, func(a, b modelList) int { return cmp.Compare(a.page.Version, b.page.Version) })
	for version := int64(0); ; version++ {
		var now []modelOp
		for _, op := range ops {
			if op.got.Version == version {
				now = append(now, op)
			}
		}
		if len(now) == 0 && version > 0 {
			break
		}
		if m = m.advance(now, version); m == nil {
			t.Fatalf("version %d: the model cannot explain these operations; want one that sets the version (none sets 0), and others that change nothing: %+v", version, now)
		}
		for len(lists) > 0 && lists[0].page.Version == version {
			if got, want := lists[0].page.stateByID(), m.expect(lists[0].visible); got != want {
				t.Fatalf("version %d:\ngot  %s\nwant %s\nafter %+v", version, got, want, now)
			}
			lists = lists[1:]
		}
	}
	if len(lists) > 0 {
		t.Errorf("%d lists have a version that no operation has returned, want none", len(lists))
	}
}

// advance applies the operations in now, whose results all have the given version, and returns the new model. One of
// the operations has set this version, and the others have changed nothing. No operation has set version 0. advance
// returns nil if the results cannot be explained in this way.
func (m *inboxModel) advance(now []modelOp, version int64) *inboxModel {
	// Undo comes last: an "all" that changes nothing still extends the snapshot of "all", and an undo may then change
	// nothing.
	slices.SortStableFunc(now, func(a, b modelOp) int { return cmp.Compare(btoi(a.action == "undo"), btoi(b.action == "undo")) })
	for first := range now {
		next := m.clone()
		if version > 0 && !next.apply(now[first]) || next.version != version {
			continue
		}
		silent := true
		for i, op := range now {
			silent = silent && ((i == first && version > 0) || !next.apply(op))
		}
		if silent {
			return next
		}
	}
	if len(now) == 0 {
		return m
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// stateByID returns the rows of a list with their states, ordered by id, and the counts.
func (p inboxPage) stateByID() string {
	var rows []string
	for _, item := range p.Items {
		rows = append(rows, fmt.Sprintf("%6s:%v,%v", item.ID, item.Seen, item.Read))
	}
	slices.Sort(rows)
	return fmt.Sprint(rows, p.Unseen, p.Unread)
}

// expect returns what stateByID must return for a list of the rows.
func (m *inboxModel) expect(visible []int64) string {
	var rows []string
	var unseen, unread int
	for _, id := range visible {
		if m.archive.on[id] {
			continue
		}
		rows = append(rows, fmt.Sprintf("%6d:%v,%v", id, m.seen[id], m.read.on[id]))
		unseen += btoi(!m.seen[id])
		unread += btoi(!m.read.on[id])
	}
	slices.Sort(rows)
	return fmt.Sprint(rows, unseen, unread)
}
