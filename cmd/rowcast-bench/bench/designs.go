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
		if missing := b.missing(d); missing != "" {
			b.report.note("%s was left out: %s", d.name, missing)
			continue
		}
		order = append(order, d)
	}
	curves, err := b.measureCurves(ctx, order, pick(b, []float64{100, 300, 1000, 3000}, []float64{300}))
	b.report.last().curves = curves
	return err
}

// missing says how to install what a design needs, if something is missing.
func (b *Bench) missing(d design) string {
	type part struct{ path, install string }
	modules := filepath.Join(b.Designs, "node")
	needs := []part{{d.program, "go build -o design in " + filepath.Dir(d.program)}}
	if d.program == "node" {
		needs = []part{{"node", "install Node 20 or later"}, {filepath.Join(modules, "node_modules"), "npm ci in " + modules}}
	}
	switch d.name {
	case "outbox, Redis":
		needs = append(needs, part{"redis-server", "apt install redis-server (Debian)"})
	case "nchan":
		needs = append(needs, part{"nginx", "apt install nginx libnginx-mod-nchan (Debian)"})
	}
	for _, need := range needs {
		_, err := exec.LookPath(need.path)
		if _, notFile := os.Stat(need.path); err != nil && notFile != nil {
			return need.install
		}
	}
	return ""
}
