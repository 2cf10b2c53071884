package bench

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// outboxSchema is the schema of the design with Redis: a table, and a trigger that notifies the relay. The relay
// deletes the rows of the table when it passes them on.
const outboxSchema = `
CREATE SCHEMA outbox;
CREATE TABLE outbox.notifications (LIKE rowcast.notifications INCLUDING ALL);
CREATE FUNCTION outbox.notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NOTIFY outbox;
	RETURN NULL;
END $$;
CREATE TRIGGER notify AFTER INSERT ON outbox.notifications FOR EACH STATEMENT EXECUTE FUNCTION outbox.notify();`

// designs measures designs that people use instead of rowcast. Their programs are in the directory Designs. A design is
// left out if a program or module that it needs is not installed.
func (b *Bench) designs(ctx context.Context) error {
	node := func(name, schema, file string) design {
		return design{name: name, schema: schema, program: "node", args: []string{filepath.Join(b.Designs, "node", file)}, asked: true}
	}
	program, modules := filepath.Join(b.Designs, "go", "design"), filepath.Join(b.Designs, "node", "node_modules")
	order := []design{rowcastDesign, naiveDesign}
	for _, d := range []struct {
		design
		needs []string
	}{
		{node("Node, pg", "naive", "listen.mjs"), []string{"node", modules}},
		{design{name: "Go, lib/pq", schema: "naive", program: program, asked: true}, []string{program}},
		{node("outbox, Redis", "outbox", "redis.mjs"), []string{"node", modules, "redis-server"}},
		{node("nchan", "naive", "nchan.mjs"), []string{"node", modules, "nginx"}},
	} {
		if at := slices.IndexFunc(d.needs, isMissing); at >= 0 {
			b.report.note("%s was left out: %s is missing; %s says how to install it", d.name, d.needs[at], filepath.Join(b.Designs, "README.md"))
			continue
		}
		order = append(order, d.design)
	}
	curves, err := b.measureCurves(ctx, order, pick(b, []float64{100, 300, 1000, 3000}, []float64{300}))
	b.report.last().curves = curves
	return err
}

// isMissing reports whether needed is missing. needed is the name of a program, or the path of a file or directory.
func isMissing(needed string) bool {
	var err error
	if filepath.Base(needed) == needed {
		_, err = exec.LookPath(needed)
	} else {
		_, err = os.Stat(needed)
	}
	return err != nil
}
