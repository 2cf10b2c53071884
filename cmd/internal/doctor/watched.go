package doctor

import (
	"context"
	"fmt"
	"strings"

	"rowcast/cmd/internal/terminal"
	"rowcast/sql"
)

// watched checks the watched tables: their triggers, their owners, and the columns that their expressions name. It
// executes no expression, because an expression can run code of the table's owner with the rights of e.Config's role.
func (e *Examination) watched(ctx context.Context) (finding, error) {
	role, missing, err := e.missing(ctx, []sql.Right{{Privilege: "EXECUTE", Kind: "FUNCTION", Name: "watched"}})
	if err != nil {
		return finding{}, err
	}
	if len(missing) > 0 {
		return finding{warning, fmt.Sprintf("the role %s cannot list the watched tables", role), fmt.Sprintf("GRANT %s TO %s;", missing[0], role)}, nil
	}
	all, err := sql.ReadWatched(ctx, e.tx)
	if err != nil {
		return finding{}, err
	}
	f := ok("tables that are watched: %d", len(all))
	var texts, fixes []string
	lacking, err := sql.WatcherGrants(ctx, e.tx)
	if err != nil {
		return finding{}, err
	}
	if len(lacking) > 0 {
		f.verdict = failure
		texts = append(texts, "the owner of a watched table lacks rights, so statements on the table fail or send nothing")
		for _, grant := range lacking {
			fixes = append(fixes, terminal.Printable(grant))
		}
	}
	for _, w := range all {
		if len(w.Problems) == 0 {
			continue
		}
		texts = append(texts, terminal.Printable(strings.TrimPrefix(w.Table+": "+strings.Join(w.Problems, "; "), ": ")))
		switch {
		case w.Failing:
			f.verdict = failure
		case f.verdict == healthy:
			f.verdict = warning
		}
		if w.Mend == "" {
			w.Mend = advice(w)
		}
		fixes = append(fixes, terminal.Printable(w.Mend))
	}
	if len(texts) > 0 {
		f.text, f.fix = strings.Join(texts, "; "), strings.Join(fixes, "\n")
	}
	return f, nil
}

// advice says how to mend a watched table for which w.Mend has no statement.
func advice(w sql.Watched) string {
	if w.Virtual {
		return fmt.Sprintf("declare the virtual generated columns of the table %s as STORED, or run rowcast unwatch %s", w.Table, terminal.ShellQuote(w.Table))
	}
	return fmt.Sprintf("watch the table %s again with expressions that do not name the dropped or renamed column: rowcast watch --list prints the present options", w.Table)
}
