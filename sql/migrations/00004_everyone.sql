-- The recipient '*' is everyone. Until now, NULL was everyone, so an undefined variable in an app turned a private message into a message
-- to everyone. A recipient is compared by its bytes (COLLATE "C"): an index in the order of a language becomes wrong when the operating
-- system's rules for that language change, for example when the files of the server move to another system.
--
-- The primary key is id alone, because frameworks find, update and delete rows by one column.

-- An UPDATE checks all constraints. Existing rows may violate the constraints that are NOT VALID, so they are dropped and added again.
DO $$
DECLARE
    constraints CONSTANT name[] := ARRAY(SELECT conname FROM pg_constraint
        WHERE conrelid = 'rowcast.notifications'::regclass AND contype = 'c' AND NOT convalidated ORDER BY conname);
    definitions CONSTANT text[] := ARRAY(SELECT pg_get_constraintdef(oid) FROM pg_constraint
        WHERE conrelid = 'rowcast.notifications'::regclass AND contype = 'c' AND NOT convalidated ORDER BY conname);
    present     bigint;
    restored    bigint; -- the transaction that restored the table from a dump of another server; 0 if none did
BEGIN
    -- Hubs and apps lock these tables in different orders. After a deadlock, the migration waits for both locks again.
    LOOP
        BEGIN
            LOCK TABLE rowcast.history, rowcast.notifications;
            EXIT;
        EXCEPTION WHEN deadlock_detected THEN
            NULL;
        END;
    END LOOP;

    FOR i IN 1 .. cardinality(constraints) LOOP
        EXECUTE format('ALTER TABLE rowcast.notifications DROP CONSTRAINT %I', constraints[i]);
    END LOOP;
    ALTER TABLE rowcast.notifications DROP CONSTRAINT IF EXISTS notifications_pkey;

    -- A row whose xid this server had not assigned when the row was written is recognised by its xmin, which the updates below change. Such
    -- a row gets the number 1, so it is never sent. In a table that was restored from a dump of another server, all restored rows get this
    -- number if one does, as in rowcast migrate. Otherwise a cursor could refer to one of them and miss the others.
    present := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
    restored := coalesce((SELECT present - (present - h.xmin::text::bigint & 4294967295) FROM rowcast.history h, pg_control_system() s
        WHERE h.system_identifier <> s.system_identifier
            OR h.database <> (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1), 0);
    IF EXISTS (SELECT FROM rowcast.notifications n
        WHERE n.xmin <> n.xid::xid AND n.xid::text::bigint > present - (present - n.xmin::text::bigint & 4294967295)) THEN
        UPDATE rowcast.notifications n SET xid = '1' WHERE n.xid >= '3' AND (n.xid::text::bigint < restored
            OR n.xmin <> n.xid::xid AND n.xid::text::bigint > present - (present - n.xmin::text::bigint & 4294967295));
    END IF;

    -- Only a user with the id '*' could receive these rows, and no user can have that id any longer.
    UPDATE rowcast.notifications SET recipient = '* (a user)' WHERE recipient = '*';
    UPDATE rowcast.notifications SET recipient = '*' WHERE recipient IS NULL;

    -- Restored rows can have ids that other rows have, too, or ids that the sequence has not reached. Of the rows with the same id, the row
    -- of the newest transaction keeps it. The sequence does not follow ids in the upper half of the bigints: an app has chosen them, and
    -- after the highest one, the sequence could return no id.
    PERFORM setval(pg_get_serial_sequence('rowcast.notifications', 'id'), max(n.id)) FROM rowcast.notifications n
        WHERE n.id < 4611686018427387904
        HAVING max(n.id) > coalesce(pg_sequence_last_value(pg_get_serial_sequence('rowcast.notifications', 'id')::regclass), 0);
    UPDATE rowcast.notifications old SET id = DEFAULT
        WHERE EXISTS (SELECT FROM rowcast.notifications new WHERE new.id = old.id AND (new.xid, new.ctid) > (old.xid, old.ctid));

    FOR i IN 1 .. cardinality(constraints) LOOP
        EXECUTE format('ALTER TABLE rowcast.notifications ADD CONSTRAINT %I %s', constraints[i], definitions[i]);
    END LOOP;
END $$;

ALTER TABLE rowcast.notifications
    ALTER COLUMN recipient TYPE text COLLATE "C",
    ALTER COLUMN recipient SET NOT NULL,
    ADD CONSTRAINT notifications_pkey PRIMARY KEY (id);
CREATE UNIQUE INDEX notifications_xid_id_idx ON rowcast.notifications (xid, id);

-- A hub of an earlier version would send rows for '*' to nobody. Without the column one, its queries fail. It then reads no rows, and its
-- clients receive the rows when they reconnect to a hub of this version.
ALTER TABLE rowcast.history RENAME COLUMN one TO singleton;

COMMENT ON COLUMN rowcast.notifications.recipient IS 'A user, a group such as team:7, or ''*'' for everyone.';
