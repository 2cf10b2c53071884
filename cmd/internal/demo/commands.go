package demo

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"rowcast/cmd/internal/private"
	"rowcast/cmd/internal/terminal"
	"rowcast/sql/cluster"
)

// A command is a command to try, which the page and the terminal show.
type command struct{ Title, Text string }

func (p *postgres) commands() []command {
	return []command{
		{"Open the database", p.psql},
		{"Notify Alice", `INSERT INTO rowcast.notifications
  (recipient, event, data)
VALUES ('alice', 'notify',
  '{"msg": "Bob liked your post"}');`},
		{"Insert an order into a table that rowcast watches", insertOrder},
		{"Send a message to all open pages without storing a row", `NOTIFY rowcast, 'hello from psql';`},
	}
}

// printCommands prints the address of the page and the commands to try.
func printCommands(w io.Writer, page string, p *postgres) {
	bold, faint, plain := "", "", ""
	if private.IsTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		bold, faint, plain = "\x1b[1m", "\x1b[2m", "\x1b[0m"
	}
	fmt.Fprintf(w, "\n%srowcast demo%s\n\n", bold, plain)
	fmt.Fprintf(w, "  Open %s%s/%s in a browser.\n\n", bold, page, plain)
	for _, c := range p.commands() {
		fmt.Fprintf(w, "  %s%s:%s\n\n    %s\n\n", faint, c.Title, plain, strings.ReplaceAll(c.Text, "\n", "\n    "))
	}
	fmt.Fprintf(w, "  %s%s%s\n", faint, p.about, plain)
	fmt.Fprintf(w, "  %sCtrl-C stops the demo.%s\n\n", faint, plain)
}

// psqlCommand returns a command line that opens the private database through its Unix socket. No password is needed
// there.
func psqlCommand(programs cluster.Programs, dsn string) string {
	program := "psql"
	if _, err := exec.LookPath(program); err != nil {
		// Some packages do not put psql on PATH, and a download may not contain it.
		if found, err := exec.LookPath(filepath.Join(programs.Dir, program)); err == nil {
			program = found
		}
	}
	if u, err := url.Parse(dsn); err == nil && u.Query().Has("host") {
		dsn = conninfo(u.Query().Get("host"), u.Query().Get("port"), u.User.Username(), strings.TrimPrefix(u.Path, "/"))
	}
	return terminal.ShellQuote(program) + " " + terminal.ShellQuote(dsn)
}

// conninfo returns a connection string in libpq's key=value format:
// https://www.postgresql.org/docs/current/libpq-connect.html
func conninfo(host, port, user, database string) string {
	var pairs []string
	for _, pair := range [][2]string{{"host", host}, {"port", port}, {"user", user}, {"dbname", database}} {
		key, value := pair[0], pair[1]
		if strings.ContainsAny(value, ` '\`) || value == "" {
			value = "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
		}
		pairs = append(pairs, key+"="+value)
	}
	return strings.Join(pairs, " ")
}
