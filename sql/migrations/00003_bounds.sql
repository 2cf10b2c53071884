-- +goose Up

-- A row costs PostgreSQL and a hub about as much to read as it cost to insert. A jsonb number can be 9,000 times as long in text as
-- it is stored, so the text is measured, and compared with data as it is before compression (data #> '{}'). A string of control
-- characters has 6 bytes of text for each byte, and numbers that fit a double have up to 28. The text is made once for data up to
-- 8 KiB, which is always accepted. Data below 2 MiB cannot have more than 64 MiB of text if it satisfies the first constraint.
-- PostgreSQL itself refuses text above 1 GB. NOT VALID: rows that break a new rule stay as they are, and the hubs announce them as
-- rowcast.toolarge or rowcast.unreadable.
ALTER TABLE rowcast.notifications
    ADD CONSTRAINT data_expands_at_most_32_fold CHECK (pg_catalog.octet_length(data::pg_catalog.text) <= 8192
        OR pg_catalog.octet_length(data::pg_catalog.text) <= 32::bigint * pg_catalog.pg_column_size(data #> '{}')) NOT VALID,
    ADD CONSTRAINT data_is_at_most_64_mib CHECK (pg_catalog.pg_column_size(data #> '{}') < 2097152
        OR pg_catalog.octet_length(data::pg_catalog.text) <= 67108864) NOT VALID;

-- Server-Sent Events are UTF-8. Some characters of other encodings cannot be converted: the INSERT then says which. A recipient with a
-- control character is a mistake, such as a line break at its end: no client can be that user, because authentication refuses it. In
-- other encodings than UTF-8 only the control characters of ASCII are known.
-- +goose StatementBegin
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
-- +goose StatementEnd

-- The numbers in this table are those of the server that history names. A row that comes with another number (restored,
-- replicated or forged) becomes an existing row, which is never sent. Until rowcast migrate has made a copy of the whole schema
-- this server's own, as after an upgrade by logical replication, the rows keep the numbers of the server that history names.
-- +goose StatementBegin
CREATE FUNCTION rowcast.disown() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM rowcast.history h, pg_control_system() s WHERE h.system_identifier = s.system_identifier
        AND h.database = (SELECT oid FROM pg_database WHERE datname = current_database())) THEN
        NEW.xid := '1';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER disown BEFORE INSERT ON rowcast.notifications FOR EACH ROW
    WHEN (NEW.xid IS DISTINCT FROM pg_current_xact_id()) EXECUTE FUNCTION rowcast.disown();
ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER disown;

-- No function depends on the search_path of its caller.
ALTER FUNCTION rowcast.ring() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION rowcast.tag(text) SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION rowcast.database_tag() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION rowcast.epoch_tag() SET search_path = pg_catalog, pg_temp;

-- A row without a time, which only an altered table can have, counts as one of 2000-01-01.
CREATE OR REPLACE FUNCTION rowcast.anchor_tag(id bigint, created_at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN id IS NOT NULL THEN rowcast.tag(concat_ws(' ', id,
        (extract(epoch FROM date_trunc('second', t))::bigint - 946684800) * 1000000 + extract(microseconds FROM t)::bigint % 1000000)) END
    FROM (SELECT CASE WHEN isfinite(created_at) THEN created_at AT TIME ZONE 'UTC' ELSE timestamp '2000-01-01' END) utc (t)
$$;

-- The transactions in flight in the text of a cursor: the gaps between them, from xmax downwards, in base 32, the highest digit
-- first. The upper half of the alphabet says that another digit follows.
CREATE OR REPLACE FUNCTION rowcast.encode_xip(xmax bigint, xip bigint[]) RETURNS text LANGUAGE sql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce('~' || string_agg(substr('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._',
            (gap >> 5 * i & 31)::int + CASE i WHEN 0 THEN 1 ELSE 33 END, 1), '' ORDER BY x DESC, i DESC), '')
        FROM (SELECT x, lag(x, 1, xmax) OVER (ORDER BY x DESC) - x - 1 AS gap FROM unnest(xip) x) gaps, generate_series(0, 12) i
        WHERE i = 0 OR gap >> 5 * i > 0
$$;

-- The cursor of the statement that calls it, for a page that renders its state from the database: a stream opened from here
-- has neither a gap nor a repetition. STABLE, because only so it reads with its caller's snapshot.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION rowcast.cursor() RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seen     CONSTANT pg_snapshot := pg_current_snapshot();
    present  CONSTANT bigint := pg_snapshot_xmax(seen)::text::bigint;
    own      CONSTANT xid8 := pg_current_xact_id_if_assigned();
    last     record;
    told     record;
    xmax     bigint := 3;
    xip      bigint[];
    anchor   text := rowcast.database_tag();
    id       bigint := 0;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'rowcast.cursor() cannot be used on a standby'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'The snapshot of a standby leaves out the transactions that are running on the primary.',
                  HINT = 'Render the page from the primary.';
    END IF;
    -- A number that this server had not assigned when the row was written does not count: xmin has the last 32 bits of the writer's.
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
    -- What this transaction has inserted so far is part of the page; what it inserts from now on is not.
    SELECT n.xid::text::bigint AS xid, n.id, n.created_at INTO told FROM rowcast.notifications n
        WHERE n.xid = own AND n.id > 0 ORDER BY n.xid DESC, n.id DESC LIMIT 1;
    IF told.id IS NOT NULL AND told.xid >= xmax THEN
        xmax := told.xid;
        anchor := rowcast.anchor_tag(told.id, told.created_at);
    ELSIF told.id IS NOT NULL THEN
        anchor := anchor || '.' || id;
    END IF;
    IF xmax - present > 4000 THEN
        RAISE EXCEPTION 'the snapshot of this transaction is too old for rowcast.cursor()'
            USING ERRCODE = 'snapshot_too_old',
                  HINT = 'Call it in READ COMMITTED, or before more than four thousand other transactions have begun.';
    END IF;
    -- Not seen are the snapshot's running transactions and all from its xmax on. This transaction's own number can be above
    -- that, with others in between.
    xip := ARRAY(SELECT x FROM (
            SELECT x::text::bigint AS x FROM pg_snapshot_xip(seen) x
            UNION SELECT generate_series(present, xmax - 1)
            UNION SELECT own::text::bigint) unseen
        WHERE x < xmax AND x IS DISTINCT FROM told.xid);
    RETURN concat_ws('-', coalesce(told.id, id), coalesce(told.xid, 0), xmax, rowcast.encode_xip(xmax, xip),
        rowcast.epoch_tag(), anchor);
END $$;
-- +goose StatementEnd
