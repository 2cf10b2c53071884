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
	// NoTransaction leaves out BEGIN and COMMIT, because a framework runs its migrations in a transaction of its own.
	NoTransaction bool
	// Inbox makes the script install the inbox.
	Inbox bool
}

// Print writes the script. The script leaves the search_path and other settings as they were, because the next
// statements of a framework need them. Statements that return rows are in DO blocks, because psql would print the rows.
func (s Script) Print(w io.Writer) error {
	begin, end := "BEGIN;\n", "COMMIT;\n"
	if s.NoTransaction {
		begin, end = "", ""
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s%s;\n%s%s%s%s;\n%s%s;\n", begin, checkEncoding, setPath, checkTransaction, takeLock, ensureSchema, refuseStranger,
		ensureVersionTable)
	for i, m := range migrations() {
		fmt.Fprintf(&out, once, m.name, m.version, signs[i], m.statements)
	}
	fmt.Fprintf(&out, "\n%s;\n", beginHistory)
	if s.Inbox {
		fmt.Fprintf(&out, onceInbox, inboxMigration.statements)
	}
	for _, g := range s.Roles.grants(s.Inbox) {
		fmt.Fprintf(&out, "%s;\n", g)
	}
	out.WriteString(resetPath + end)
	_, err := io.WriteString(w, out.String())
	return err
}

// setPath sets the search_path of a transaction, and how it reads backslashes in string constants, as [Secure] does.
// resetPath sets both back.
const (
	setPath = `DO $$ BEGIN
    PERFORM pg_catalog.set_config('rowcast.search_path', pg_catalog.current_setting('search_path'), true);
    PERFORM pg_catalog.set_config('rowcast.strings', pg_catalog.current_setting('standard_conforming_strings'), true);
    PERFORM pg_catalog.set_config('standard_conforming_strings', 'on', true);
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
END $$;
`
	resetPath = `DO $$ BEGIN
    PERFORM set_config('standard_conforming_strings', current_setting('rowcast.strings'), true);
    PERFORM set_config('search_path', current_setting('rowcast.search_path'), true);
END $$;
`
)

// checkTransaction fails if the statements of the script do not run in one transaction. The settings of setPath then
// ended with the statement before, and the lock of migrations would not last either.
const checkTransaction = `DO $$ BEGIN
    IF pg_catalog.current_setting('rowcast.strings', true) OPERATOR(pg_catalog.=) ANY ('{on,off}'::pg_catalog.text[]) THEN
        RETURN;
    END IF;
    RAISE EXCEPTION 'the statements of rowcast do not run in one transaction'
        USING HINT = 'Run them in a transaction, or print them without --no-transaction.';
END $$;
`

// takeLock waits for the lock of migrations.
var takeLock = fmt.Sprintf("DO $$ BEGIN PERFORM pg_advisory_xact_lock(%d); END $$;\n", lockKey)

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
END $$;
`

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
END $once$;
`

// onceInbox is the form of the migration of the inbox. The migration runs only if the inbox is not installed. The
// argument is its SQL.
const onceInbox = `
DO $once$ BEGIN -- inbox
    IF ` + installedInbox + ` = 0 THEN
        EXECUTE $migration$
%s$migration$;
    END IF;
END $once$;
`
