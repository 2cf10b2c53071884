package web_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"rowcast/listener/cursor"
)

// The tabs compare cursors as the hub does.
func TestScriptCovers(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var cases [][3]any
	for range 5000 {
		a, b := randomCursor(r), randomCursor(r)
		cases = append(cases, [3]any{a.String(), b.String(), a.Epoch == b.Epoch && a.Covers(b)})
	}
	text, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	src, err := filepath.Abs(filepath.Join("src", "cursor.js"))
	if err != nil {
		t.Fatal(err)
	}
	program := fmt.Sprintf(`import { covers } from "file://%s";
		const wrong = %s.filter(([a, b, want]) => covers(a, b) !== want && a !== b);
		if (wrong.length > 0) throw new Error(wrong.length + " wrong results of covers; the first two cursors, and the result that was wanted: " + wrong[0]);`, filepath.ToSlash(src), text)
	path := filepath.Join(dir, "covers.mjs")
	if err := os.WriteFile(path, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	runNode(t, dir, path)
}

// randomCursor returns a cursor of few transactions, so that many cursors cover each other.
func randomCursor(r *rand.Rand) cursor.Cursor {
	c := cursor.Cursor{Xmax: 100 + r.Uint64N(6), Epoch: cursor.Tag(1 + r.UintN(8)/7), Anchor: cursor.Anchor{ID: 1}}
	if r.IntN(2) == 0 {
		c.Xid, c.ID = c.Xmax-r.Uint64N(4), 1+r.Int64N(3)
	}
	for xid := c.Xmax - 4; xid < c.Xmax; xid++ {
		if xid != c.Xid && r.IntN(6) == 0 {
			c.Xip = append(c.Xip, xid)
		}
	}
	if r.IntN(3) == 0 && c.Xid != 3 {
		c.Xip = append([]uint64{3 + r.Uint64N(50)}, c.Xip...) // a gap of several digits
	}
	return c
}
