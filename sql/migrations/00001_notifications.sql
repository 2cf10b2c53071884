-- A row is a notification. It is sent when its transaction commits.
CREATE TABLE rowcast.notifications (
    id          bigint      GENERATED ALWAYS AS IDENTITY,
    recipient   text,
    event       text        NOT NULL DEFAULT 'message',
    data        jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (xid, id),
    -- These constraints refuse rows that a hub could not send or delete correctly. The app that made the mistake gets the error.
    CONSTRAINT id_is_positive CHECK (id > 0),
    CONSTRAINT recipient_is_1_to_256_bytes CHECK (octet_length(recipient) BETWEEN 1 AND 256),
    CONSTRAINT event_is_1_to_128_bytes CHECK (octet_length(event) BETWEEN 1 AND 128),
    CONSTRAINT event_has_no_line_break CHECK (event !~ '[\r\n]'),
    CONSTRAINT event_is_not_reserved CHECK (event NOT IN ('error', 'open') AND NOT starts_with(event, 'rowcast.')),
    CONSTRAINT created_at_is_finite CHECK (isfinite(created_at))
);
CREATE INDEX notifications_recipient_idx ON rowcast.notifications (recipient, xid, id);

-- ring() notifies the hubs. The trigger below calls it only while a session holds the park lock, an advisory lock, or waits for it. A
-- hub that sleeps until a notification arrives holds the lock, or knows that another hub holds it.
CREATE FUNCTION rowcast.ring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Two-phase commit refuses NOTIFY: SET rowcast.ring = off, and the hubs find the row within a second.
    IF pg_catalog.current_setting('rowcast.ring', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_catalog.pg_notify('rowcast', '');
    END IF;
    RETURN NULL;
END $$;

-- The condition tries to get the park lock in shared mode. If it succeeds, no hub holds the lock: the hubs poll and find the row
-- without a notification. The transaction keeps the lock until it ends, so no hub can get the lock, and then sleep, before the row is
-- visible. The check is in WHEN because a statement that does not notify then needs no call of the function.
CREATE TRIGGER ring AFTER INSERT ON rowcast.notifications FOR EACH STATEMENT
    WHEN (NOT pg_try_advisory_xact_lock_shared(1919907683, 1634956288)) EXECUTE FUNCTION rowcast.ring();
ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER ring;

-- PostgreSQL empties an unlogged table when it recovers from a crash, and a standby has no copy of its rows. A hub then inserts a
-- new token. A new token means that committed transactions may be lost and that their numbers may have been assigned again.
CREATE UNLOGGED TABLE rowcast.epoch (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    token uuid    NOT NULL DEFAULT gen_random_uuid()
);

-- history has one row. It names the server and the database that assigned the transaction numbers in rowcast.notifications, and the
-- number below which retention has deleted rows (horizon).
CREATE TABLE rowcast.history (
    one               boolean PRIMARY KEY DEFAULT true CHECK (one),
    horizon           xid8    NOT NULL DEFAULT '3',
    system_identifier bigint  NOT NULL,
    database          oid     NOT NULL
);
INSERT INTO rowcast.history (system_identifier, database)
    SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()) FROM pg_control_system();

-- tag() returns the first 32 bits of the SHA-256 of a text, in hexadecimal.
CREATE FUNCTION rowcast.tag(content text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS
    $$ SELECT left(encode(sha256(convert_to(content, 'UTF8')), 'hex'), 8) $$;

-- database_tag() identifies the server and the database.
CREATE FUNCTION rowcast.database_tag() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT rowcast.tag(concat_ws(' ', system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database())))
    FROM pg_control_system()
$$;

-- epoch_tag() identifies the epoch. In an epoch, the server loses no committed transaction. The hashed text contains the start time of
-- the postmaster, because with some hosted services unlogged tables survive a crash.
CREATE FUNCTION rowcast.epoch_tag() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT rowcast.tag(concat_ws(' ', rowcast.database_tag(), (SELECT token FROM rowcast.epoch),
        (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint))
$$;

-- anchor_tag() identifies a row by its id and its created_at. A cursor contains the tag of its anchor, a row of the highest transaction
-- that the cursor has seen. If that row is still there, that transaction is not lost. The time is in microseconds since 2000. It is
-- computed from two parts, because extract(epoch) returns a double before PostgreSQL 14, which is not exact.
CREATE FUNCTION rowcast.anchor_tag(id bigint, created_at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT rowcast.tag(concat_ws(' ', id,
        (extract(epoch FROM date_trunc('second', created_at AT TIME ZONE 'UTC'))::bigint - 946684800) * 1000000
        + extract(microseconds FROM created_at AT TIME ZONE 'UTC')::bigint % 1000000))
$$;

-- encode_xip() returns the part of a cursor's text that lists the transactions in flight: the gaps between them, from xmax downwards, in
-- a Rice code with six bits in each character. The first character is the number of low bits that are written in binary. The rest of a
-- gap is written in unary. (Migration 3 replaces this function.)
CREATE FUNCTION rowcast.encode_xip(xmax bigint, xip bigint[]) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    alphabet CONSTANT text := 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._';
    low  int;
    bits text;
BEGIN
    IF cardinality(xip) = 0 THEN
        RETURN '';
    END IF;
    low := floor(log(2, ((xmax - (SELECT min(x) FROM unnest(xip) x)) / cardinality(xip))::numeric));
    SELECT string_agg(repeat('1', (gap >> low)::int) || '0' || right(gap::bit(64)::text, low), '' ORDER BY x DESC)
        INTO bits
        FROM (SELECT x, lag(x, 1, xmax) OVER (ORDER BY x DESC) - x - 1 AS gap FROM unnest(xip) x) gaps;
    bits := rpad(bits, (length(bits) + 5) / 6 * 6, '1');
    RETURN substr(alphabet, low + 1, 1) || (
        SELECT string_agg(substr(alphabet, substr(bits, i, 6)::bit(6)::int + 1, 1), '' ORDER BY i)
        FROM generate_series(1, length(bits), 6) i);
END $$;

-- cursor() returns the cursor of the statement that calls it. A page that shows rows of the same statement opens its stream with this
-- cursor and receives each later row exactly once. The function is STABLE because it must read with the snapshot of its caller.
CREATE FUNCTION rowcast.cursor() RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seen     CONSTANT pg_snapshot := pg_current_snapshot();
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
    SELECT n.xid, n.id, n.created_at INTO last FROM rowcast.notifications n
        WHERE n.xid >= '3' AND n.xid < pg_snapshot_xmax(seen) AND n.xid IS DISTINCT FROM own AND pg_visible_in_snapshot(n.xid, seen)
        ORDER BY n.xid DESC, n.id DESC LIMIT 1;
    IF last.id IS NOT NULL THEN
        xmax := last.xid::text::bigint + 1;
        id := last.id;
        anchor := rowcast.anchor_tag(last.id, last.created_at);
    END IF;
    -- The page contains the rows that this transaction has inserted so far. Rows that it inserts later are sent.
    SELECT n.xid::text::bigint AS xid, n.id, n.created_at INTO told FROM rowcast.notifications n
        WHERE n.xid = own ORDER BY n.xid DESC, n.id DESC LIMIT 1;
    IF told.id IS NOT NULL AND told.xid >= xmax THEN
        xmax := told.xid;
        anchor := rowcast.anchor_tag(told.id, told.created_at);
    ELSIF told.id IS NOT NULL THEN
        anchor := anchor || '.' || id;
    END IF;
    IF xmax - pg_snapshot_xmax(seen)::text::bigint > 10000 THEN
        RAISE EXCEPTION 'the snapshot of this transaction is too old for rowcast.cursor()'
            USING ERRCODE = 'snapshot_too_old',
                  HINT = 'Call it in READ COMMITTED, or before more than ten thousand other transactions have begun.';
    END IF;
    -- The snapshot does not see the transactions that were running, and none from its xmax on. The number of this transaction can be
    -- higher than xmax, with others in between.
    xip := ARRAY(SELECT x FROM (
            SELECT x::text::bigint AS x FROM pg_snapshot_xip(seen) x
            UNION SELECT generate_series(pg_snapshot_xmax(seen)::text::bigint, xmax - 1)
            UNION SELECT own::text::bigint) unseen
        WHERE x < xmax AND x IS DISTINCT FROM told.xid);
    RETURN concat_ws('-', coalesce(told.id, id), coalesce(told.xid, 0), xmax, rowcast.encode_xip(xmax, xip),
        rowcast.epoch_tag(), anchor);
END $$;
