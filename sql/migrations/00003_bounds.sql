-- A hub reads data as text, which must not be far longer than what is stored. The text of a jsonb number can be 8,000 times as long
-- as its stored form.
--
-- The first constraint compares the length of the text with the size of data before compression (data #> '{}'). JSON that apps write
-- satisfies it: a control character has 6 bytes of text for each stored byte, and a number that fits a double has up to 28. The first
-- constraint always accepts data with at most 8 KiB of text, and converts such data to text only once.
--
-- The second constraint limits the text to 64 MiB. It does not measure data below 2 MiB, whose text cannot be longer because of the
-- first constraint. PostgreSQL itself refuses text above 1 GB.
--
-- The constraints are NOT VALID: existing rows that violate them remain. If a hub cannot send such a row, it sends rowcast.toolarge or
-- rowcast.unreadable instead.
ALTER TABLE rowcast.notifications
    ADD CONSTRAINT data_expands_at_most_32_fold CHECK (pg_catalog.octet_length(data::pg_catalog.text) <= 8192
        OR pg_catalog.octet_length(data::pg_catalog.text) <= 32::bigint * pg_catalog.pg_column_size(data #> '{}')) NOT VALID,
    ADD CONSTRAINT data_is_at_most_64_mib CHECK (pg_catalog.pg_column_size(data #> '{}') < 2097152
        OR pg_catalog.octet_length(data::pg_catalog.text) <= 67108864) NOT VALID;

-- Server-Sent Events are UTF-8. An INSERT fails if a character cannot be converted to UTF-8, and the error names the character.
--
-- A recipient with a control character, such as a line break at its end, is a mistake of the app. No client can have that name, because
-- authentication refuses it. In encodings other than UTF-8, the constraint checks only the control characters of ASCII.
DO $$
BEGIN
    IF current_setting('server_encoding') = 'UTF8' THEN
        ALTER TABLE rowcast.notifications ADD CONSTRAINT recipient_has_no_control_characters
            CHECK (recipient !~ '[\u0001-\u001f\u007f-\u009f]' COLLATE "C") NOT VALID;
    ELSE
        ALTER TABLE rowcast.notifications ADD CONSTRAINT recipient_has_no_control_characters
            CHECK (recipient !~ '[\u0001-\u001f\u007f]' COLLATE "C") NOT VALID;
        ALTER TABLE rowcast.notifications ADD CONSTRAINT has_utf8_form CHECK (convert_to(coalesce(recipient, ''), 'UTF8') IS NOT NULL
            AND convert_to(event, 'UTF8') IS NOT NULL AND convert_to(data::text, 'UTF8') IS NOT NULL) NOT VALID;
    END IF;
END $$;

-- A row may have its number in xid from elsewhere: from a dump, by logical replication, or because the app has set it. disown()
-- replaces it by 1, which marks rows that are never sent.
--
-- If history names another server or database, the whole schema is a copy, for example in an upgrade by logical replication. The rows
-- then keep their numbers until rowcast migrate has checked them.
CREATE FUNCTION rowcast.disown() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM rowcast.history h, pg_control_system() s WHERE h.system_identifier = s.system_identifier
        AND h.database = (SELECT oid FROM pg_database WHERE datname = current_database())) THEN
        NEW.xid := '1';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER disown BEFORE INSERT ON rowcast.notifications FOR EACH ROW
    WHEN (NEW.xid IS DISTINCT FROM pg_current_xact_id()) EXECUTE FUNCTION rowcast.disown();
ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER disown;

-- The functions must not depend on the search_path of their callers.
ALTER FUNCTION rowcast.ring() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION rowcast.tag(text) SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION rowcast.database_tag() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION rowcast.epoch_tag() SET search_path = pg_catalog, pg_temp;

-- anchor_tag() treats a created_at that is NULL or infinite as 2000-01-01. Only a table that was altered has such rows.
CREATE OR REPLACE FUNCTION rowcast.anchor_tag(id bigint, created_at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN id IS NOT NULL THEN rowcast.tag(concat_ws(' ', id,
        (extract(epoch FROM date_trunc('second', t))::bigint - 946684800) * 1000000 + extract(microseconds FROM t)::bigint % 1000000)) END
    FROM (SELECT CASE WHEN isfinite(created_at) THEN created_at AT TIME ZONE 'UTC' ELSE timestamp '2000-01-01' END) utc (t)
$$;

-- encode_xip() returns the part of a cursor's text that lists the transactions in flight: "~", and then the gaps between them, from xmax
-- downwards, in base 32 with the highest digit first. A digit from the upper half of the alphabet is followed by another digit of the
-- same gap. Without transactions in flight, it returns ''.
CREATE OR REPLACE FUNCTION rowcast.encode_xip(xmax bigint, xip bigint[]) RETURNS text LANGUAGE sql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce('~' || string_agg(substr('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._',
            (gap >> 5 * i & 31)::int + CASE i WHEN 0 THEN 1 ELSE 33 END, 1), '' ORDER BY x DESC, i DESC), '')
        FROM (SELECT x, lag(x, 1, xmax) OVER (ORDER BY x DESC) - x - 1 AS gap FROM unnest(xip) x) gaps, generate_series(0, 12) i
        WHERE i = 0 OR gap >> 5 * i > 0
$$;

-- cursor() returns the cursor of the statement that calls it. A page that shows rows of the same statement opens its stream with this
-- cursor and receives each later row exactly once. The function is STABLE because it must read with the snapshot of its caller.
CREATE OR REPLACE FUNCTION rowcast.cursor() RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seen     CONSTANT pg_snapshot := pg_current_snapshot();
    present  CONSTANT bigint := pg_snapshot_xmax(seen)::text::bigint;
    own      CONSTANT xid8 := pg_current_xact_id_if_assigned();
    last     record;
    mine     record;
    xmax     bigint := 3;
    xip      bigint[];
    anchor   text := rowcast.database_tag();
    id       bigint := 0;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'rowcast.cursor() cannot be used on a standby'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'The snapshot of a standby does not contain the transactions that run on the primary.',
                  HINT = 'Render the page from the primary.';
    END IF;
    -- The newest visible row of another transaction. The last condition excludes rows whose number this server had not assigned when
    -- the row was written. xmin has the lowest 32 bits of the number of the transaction that wrote the row.
    SELECT n.xid, n.id, n.created_at INTO last FROM rowcast.notifications n
        WHERE n.xid >= '3' AND n.xid < pg_snapshot_xmax(seen) AND n.xid IS DISTINCT FROM own AND pg_visible_in_snapshot(n.xid, seen)
        AND n.id > 0
        AND (n.xmin = n.xid::xid OR n.xid::text::bigint <= present - (present - n.xmin::text::bigint & 4294967295))
        ORDER BY n.xid DESC, n.id DESC LIMIT 1;
    IF last.id IS NOT NULL THEN
        xmax := last.xid::text::bigint + 1;
        id := last.id;
        anchor := rowcast.anchor_tag(last.id, last.created_at);
    END IF;
    -- The page contains the rows that this transaction has inserted so far. Rows that it inserts later are sent.
    SELECT n.xid::text::bigint AS xid, n.id, n.created_at INTO mine FROM rowcast.notifications n
        WHERE n.xid = own AND n.id > 0 ORDER BY n.xid DESC, n.id DESC LIMIT 1;
    IF mine.id IS NOT NULL AND mine.xid >= xmax THEN
        xmax := mine.xid;
        anchor := rowcast.anchor_tag(mine.id, mine.created_at);
    ELSIF mine.id IS NOT NULL THEN
        anchor := anchor || '.' || id;
    END IF;
    IF xmax - present > 4000 THEN
        RAISE EXCEPTION 'the snapshot of this transaction is too old for rowcast.cursor()'
            USING ERRCODE = 'snapshot_too_old',
                  HINT = 'Call it in a READ COMMITTED transaction, or before more than 4,000 other transactions have begun.';
    END IF;
    -- The snapshot does not see the transactions that were running, and none from its xmax on. The number of this transaction can be
    -- higher than xmax, with others in between.
    xip := ARRAY(SELECT x FROM (
            SELECT x::text::bigint AS x FROM pg_snapshot_xip(seen) x
            UNION SELECT generate_series(present, xmax - 1)
            UNION SELECT own::text::bigint) unseen
        WHERE x < xmax AND x IS DISTINCT FROM mine.xid);
    RETURN concat_ws('-', coalesce(mine.id, id), coalesce(mine.xid, 0), xmax, rowcast.encode_xip(xmax, xip),
        rowcast.epoch_tag(), anchor);
END $$;

-- An older rowcast installed version 1 with other comments. They are replaced here.
COMMENT ON TABLE rowcast.notifications IS 'Notifications. At COMMIT, an inserted row is sent to the browsers of its recipient.';
COMMENT ON COLUMN rowcast.notifications.recipient IS 'A user or a group, such as team:7. NULL: everyone.';
COMMENT ON COLUMN rowcast.notifications.event IS 'The name of the event in the browser.';
COMMENT ON COLUMN rowcast.notifications.data IS 'The data of the event. The browser receives it as JSON.';
COMMENT ON COLUMN rowcast.notifications.xid IS 'The transaction that inserted the row. Do not set it: the default is needed to resume streams exactly.';
