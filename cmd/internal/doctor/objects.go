package doctor

import (
	"context"
	"slices"
	"strings"

	"rowcast/cmd/internal/terminal"
)

// consequences says what a difference of an object means for a hub. The entry of a table does not apply if the table is
// missing.
var consequences = map[string]string{
	"trigger rowcast.notifications.ring":             "a sleeping hub finds new rows only by its safety poll, within about a second",
	"property enabled of rowcast.notifications.ring": "a sleeping hub finds new rows only by its safety poll, within about a second",
	"table rowcast.epoch":                            "hubs do not detect that PostgreSQL has recovered from the crash of a server process",
	"table rowcast.notifications":                    "a crash empties it",
}

// compared returns a check that reports the differences of some kinds, with the statements that mend them. The check
// reports nothing if the schema was not compared.
func compared(healthyText string, kinds ...string) func(*Examination, context.Context) (finding, error) {
	return func(e *Examination, _ context.Context) (finding, error) {
		if !e.compared {
			return finding{}, nil
		}
		f := ok("%s", healthyText)
		var texts []string
		for _, d := range e.differences {
			if !slices.Contains(kinds, d.Kind) {
				continue
			}
			if f.verdict == healthy {
				f.verdict = warning
			}
			text := d.String()
			if !d.Minor {
				f.verdict = failure
				isMissing := d.Kind == "table" && strings.HasPrefix(d.What, "is missing")
				if consequence := consequences[d.Object]; consequence != "" && !isMissing {
					text += ", so " + consequence
				}
			}
			texts = append(texts, terminal.Printable(text))
			f.fix += statements(d.Kind, d.Mend)
		}
		if len(texts) > 0 {
			f.text = strings.Join(texts, "; ")
		}
		return f, nil
	}
}

// statements returns the statements of a fix, one per line. The definition of a function has several lines, and each line
// after the first begins with a space. A statement that follows the definition begins a new line without a space.
func statements(kind, mend string) string {
	if mend == "" {
		return ""
	}
	var lines strings.Builder
	continues := false // the line belongs to the statement of the line before
	for line := range strings.SplitSeq(mend, "\n") {
		if continues {
			lines.WriteByte(' ')
		}
		lines.WriteString(terminal.Printable(line) + "\n")
		continues = kind == "function" && !strings.HasSuffix(line, "$function$;")
	}
	return lines.String()
}
