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
BEGIN
    LOCK TABLE rowcast.notifications;
    FOR i IN 1 .. cardinality(constraints) LOOP
        EXECUTE format('ALTER TABLE rowcast.notifications DROP CONSTRAINT %I', constraints[i]);
    END LOOP;

    -- Only a user with the id '*' could receive these rows, and no user can have that id any longer.
    UPDATE rowcast.notifications SET recipient = '* (a user)' WHERE recipient = '*';
    UPDATE rowcast.notifications SET recipient = '*' WHERE recipient IS NULL;

    -- Restored rows can have ids that other rows have, too. The row of the newest transaction keeps the id.
    IF EXISTS (SELECT FROM rowcast.notifications GROUP BY id HAVING count(*) > 1) THEN
        PERFORM setval(pg_get_serial_sequence('rowcast.notifications', 'id'), greatest(max(id), 1)) FROM rowcast.notifications;
        UPDATE rowcast.notifications old SET id = DEFAULT
            WHERE EXISTS (SELECT FROM rowcast.notifications new WHERE new.id = old.id AND new.xid > old.xid);
    END IF;

    FOR i IN 1 .. cardinality(constraints) LOOP
        EXECUTE format('ALTER TABLE rowcast.notifications ADD CONSTRAINT %I %s', constraints[i], definitions[i]);
    END LOOP;
END $$;

ALTER TABLE rowcast.notifications
    ALTER COLUMN recipient TYPE text COLLATE "C",
    ALTER COLUMN recipient SET NOT NULL,
    DROP CONSTRAINT IF EXISTS notifications_pkey,
    ADD CONSTRAINT notifications_pkey PRIMARY KEY (id);
CREATE UNIQUE INDEX notifications_xid_id_idx ON rowcast.notifications (xid, id);

-- An earlier version of rowcast would send rows for '*' to nobody. Its queries fail without this column, so its clients receive these rows
-- when they reconnect to a hub of this version.
ALTER TABLE rowcast.history RENAME COLUMN one TO singleton;

COMMENT ON COLUMN rowcast.notifications.recipient IS 'A user, a group such as team:7, or ''*'' for everyone.';
