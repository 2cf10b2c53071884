package listener

import (
	"rowcast/listener/cursor"
	"rowcast/listener/guard"
)

// A level is the number of rows that the next page may have. It rises while pages are full, and falls when rows are
// large or cannot be read. So the work stays linear in the number of rows, because PostgreSQL converts only few rows to
// text that the page then leaves out.
//
// The text of a jsonb number can be 9,000 times as long as its stored form, and only the conversion shows its length.
// So the stored bytes that a page asks to convert are bounded too, by inlineTotal.
type level int

const (
	// firstLevel is the level at which reading begins. Below it, a page lists its rows without their data, and each row
	// is read by a statement of its own.
	firstLevel level = 16

	// inlineTotal bounds the stored bytes of all rows of a page that come with their data, if PageRows is at most 512.
	// Their text is then at most 1.2 GB.
	inlineTotal = 128 << 10
	// minInline and maxInline bound the stored bytes of one row that comes with its data.
	minInline, maxInline = 256, 8 << 10
	// maxSingle is the largest number of rows of a page that are read by statements of their own.
	maxSingle = 16
)

// isCareful reports whether rows are read one by one.
func (l level) isCareful() bool { return l < firstLevel }

// inline returns the stored size up to which the data of a row comes with its page.
func (l level) inline() int { return max(minInline, min(maxInline, inlineTotal/int(l))) }

// after returns the level after a page that was read at l.
func (l level) after(p *page, pageRows int) level {
	half := max(l/2, firstLevel)
	switch {
	case p.trouble:
		return 1
	case p.cut:
		return max(1, min(l, level(len(p.rows))))
	case l.isCareful():
		return 2 * l
	case 8*p.single > len(p.rows):
		return half
	case p.full:
		return max(l, min(2*l, level(pageRows)))
	}
	return l
}

// levels keep the level of each replay between two pages, by the place where the next page begins. A replay is
// identified only by this place, because a Replayer keeps no other record of a replay.
type levels struct{ at guard.Value[map[place]level] }

// A place is the last row of a page.
type place struct {
	xid uint64
	id  int64
}

// maxLevels is the number of places that are kept. A replay whose place was removed goes on at firstLevel.
const maxLevels = 4096

// get returns the level at which a replay goes on from a cursor.
func (l *levels) get(from cursor.Cursor) level {
	now := firstLevel
	l.at.Do(func(at *map[place]level) {
		if kept, ok := (*at)[place{from.Xid, from.ID}]; ok {
			now = kept
		}
	})
	return now
}

// set keeps the level at which a replay goes on from a cursor. It keeps nothing for a cursor at the end of a
// transaction.
func (l *levels) set(from cursor.Cursor, now level) {
	if from.Whole() {
		return
	}
	l.at.Do(func(at *map[place]level) {
		if *at == nil {
			*at = make(map[place]level)
		}
		for some := range *at {
			if len(*at) < maxLevels {
				break
			}
			delete(*at, some)
		}
		(*at)[place{from.Xid, from.ID}] = now
	})
}
