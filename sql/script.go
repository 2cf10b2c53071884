package sql

import (
	"fmt"
	"io"
	"strings"
)

// A Script is SQL for psql, or for a migration of a framework. It installs or upgrades the schema, and grants the
// rights to the roles. It skips what is already installed, so it can run again. For example, a framework may drop the
// tables of the app, keep the schema rowcast, and run all migrations again.
//
// In a copy of the schema without rows, and after a test suite has truncated all tables, the script inserts the rows
// that the schema needs. It does not correct the numbers of restored rows. Only [Migrate] does.
type Script struct {
	Roles Roles
	// NoTransaction makes the script a single statement without BEGIN and COMMIT, because a framework runs its migrations
	// in a transaction of its own.
	NoTransaction bool
	// Inbox makes the script install the inbox.
	Inbox bool
}

// Print writes the script. The script leaves the search_path and other settings as they were, because the next
// statements of a framework need them. Statements that return rows are in DO blocks, because psql would print the rows.
//
// With NoTransaction, the script is a single statement. Some tools prepare what they execute, and PostgreSQL does not
// prepare several statements at once. Others run each statement in a transaction of its own.
func (s Script) Print(w io.Writer) error {
	var out strings.Builder
	for _, part := range s.parts() {
		if part += ";\n"; s.NoTransaction {
			part = "EXECUTE " + dollarQuoted("part", part) + ";\n"
		}
		out.WriteString(part)
	}
	text := "BEGIN;\n" + out.String() + "COMMIT;\n"
	if s.NoTransaction {
		text = "DO " + dollarQuoted("rowcast", "BEGIN\n"+out.String()+"END ") + ";\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// dollarQuoted returns text as a string constant. The text may contain a constant with the same tag.
func dollarQuoted(tag, text string) string {
	for strings.Contains(text, "$"+tag+"$") {
		tag += "_"
	}
	return "$" + tag + "$" + text + "$" + tag + "$"
}

// parts returns the statements of the script.
func (s Script) parts() []string {
	parts := []string{checkEncoding, setPath, takeLock, ensureSchema, refuseStranger, ensureVersionTable}
	for i, m := range migrations() {
		parts = append(parts, fmt.Sprintf(once, m.name, m.version, signs[i], m.statements))
	}
	parts = append(parts, beginHistory)
	if s.Inbox {
		parts = append(parts, fmt.Sprintf(onceInbox, inboxMigration.statements))
	}
	for _, g := range s.Roles.grants(s.Inbox) {
		parts = append(parts, g.String())
	}
	return append(parts, resetPath)
}

// setPath sets the search_path of a transaction, and how it reads backslashes in string constants, as [Secure] does.
// resetPath sets both back.
const (
	setPath = `DO $$ BEGIN
    PERFORM pg_catalog.set_config('rowcast.search_path', pg_catalog.current_setting('search_path'), true);
    PERFORM pg_catalog.set_config('rowcast.strings', pg_catalog.current_setting('standard_conforming_strings'), true);
    PERFORM pg_catalog.set_config('standard_conforming_strings', 'on', true);
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
END $$`
	resetPath = `DO $$ BEGIN
    PERFORM set_config('standard_conforming_strings', current_setting('rowcast.strings'), true);
    PERFORM set_config('search_path', current_setting('rowcast.search_path'), true);
END $$`
)

// takeLock waits for the lock of migrations.
var takeLock = fmt.Sprintf("DO $$ BEGIN PERFORM pg_advisory_xact_lock(%d); END $$", lockKey)

// refuseStranger fails if findStranger finds an object.
const refuseStranger = `DO $$
DECLARE
    stranger record;
BEGIN
    FOR stranger IN ` + findStranger + ` LOOP
        RAISE EXCEPTION '% belongs to the role %, which could run its own code with the rights of the current role',
            stranger.name, quote_ident(stranger.owner)
            USING HINT = CASE stranger.kind WHEN 0 THEN 'Run this as that role.' ELSE 'rowcast doctor prints what to do.' END;
    END LOOP;
END $$`

// once is the form of a migration. The migration runs only if its version is not recorded and its sign is false. If its
// sign is true, only the version is recorded. The arguments are the name, the version, the sign and the SQL of the
// migration.
const once = `
DO $once$ BEGIN -- %[1]s
    IF (SELECT coalesce(max(version_id), 0) >= %[2]d FROM ` + versionTable + `) THEN
        RETURN;
    END IF;
    IF NOT (%[3]s) THEN
        EXECUTE $migration$
%[4]s$migration$;
    END IF;
    INSERT INTO ` + versionTable + ` (version_id, is_applied) VALUES (%[2]d, true);
END $once$`

// onceInbox is the form of the migration of the inbox. The migration runs only if the inbox is not installed. The
// argument is its SQL.
const onceInbox = `
DO $once$ BEGIN -- inbox
    IF ` + installedInbox + ` = 0 THEN
        EXECUTE $migration$
%s$migration$;
    END IF;
END $once$`
