package bench

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
)

// outboxSchema is the schema of the designs with a relay: a table whose rows the relay deletes, and a trigger that notifies it.
const outboxSchema = `
CREATE SCHEMA outbox;
CREATE TABLE outbox.notifications (LIKE rowcast.notifications INCLUDING ALL);
CREATE FUNCTION outbox.notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NOTIFY outbox;
	RETURN NULL;
END $$;
CREATE TRIGGER notify AFTER INSERT ON outbox.notifications FOR EACH STATEMENT EXECUTE FUNCTION outbox.notify();`

// designs measures designs that people use instead of rowcast, whose programs are in the directory Designs. It leaves out those that are
// not installed.
func (b *Bench) designs(ctx context.Context) error {
	node := func(name, schema, file string) design {
		return design{name: name, schema: schema, program: "node", args: []string{filepath.Join(b.Designs, "node", file)}, asked: true}
	}
	order := []design{rowcastDesign, naiveDesign}
	for _, d := range []design{
		node("Node, pg", "naive", "listen.mjs"),
		{name: "Go, lib/pq", schema: "naive", program: filepath.Join(b.Designs, "go", "design"), asked: true},
		node("outbox, Redis", "outbox", "redis.mjs"),
		node("nchan", "naive", "nchan.mjs"),
	} {
		if err := b.tryDesign(ctx, d); err != nil {
			b.report.note("%s was left out: %v", d.name, err)
			continue
		}
		order = append(order, d)
	}
	return b.measureCurves(ctx, order, pick(b, []float64{100, 300, 1000, 3000}, []float64{300}))
}

// tryDesign returns an error if a design cannot be measured, for example because its program is not installed.
func (b *Bench) tryDesign(ctx context.Context, d design) error {
	if _, err := exec.LookPath(d.program); err != nil {
		return err
	}
	if d.program == "node" {
		if _, err := os.Stat(d.args[0]); err != nil {
			return err
		}
	}
	s, err := b.newStage(ctx, setup{design: d, streams: 1, writers: 1})
	if err != nil {
		return err
	}
	defer s.stop()
	_, err = s.run(ctx, load{Rows: 1, Users: 1})
	return err
}
