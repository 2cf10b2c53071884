-- The inbox: what each user has seen, read and archived. sql/README.md describes it. No table refers to rowcast.notifications with a
-- foreign key, because test suites truncate that table. Two triggers of rowcast.notifications remove the state of deleted rows.

-- inbox_version() returns the number of the newest migration of the inbox. TRUNCATE and a dump without rows do not change it.
CREATE FUNCTION rowcast.inbox_version() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';

-- A user has a row from the first visit on. inbox_mark() and inbox_undo() lock this row. They increment version if they write a state or
-- send an event.
--
-- seen, read and archived are snapshots. "All", which is inbox_mark() with a cursor, extends them: the rows that such a snapshot shows
-- have the state. read_version is the version of the newest "all" whose cursor covered all rows that read shows. A row that was marked as
-- unread after that version stays unread. read_marked is the version of the newest "all" with the action read. Only this "all" can be
-- undone. archived_version and archived_marked are the same for archived.
--
-- visited is the snapshot of the first visit. The rows of groups and '*' that it shows count as seen and read.
CREATE TABLE rowcast.inbox_users (
    recipient        text COLLATE "C" PRIMARY KEY,
    version          bigint      NOT NULL DEFAULT 0,
    visited          pg_snapshot NOT NULL,
    seen             pg_snapshot NOT NULL DEFAULT '1:1:',
    read             pg_snapshot NOT NULL DEFAULT '1:1:',
    read_version     bigint      NOT NULL DEFAULT 0,
    read_marked      bigint      NOT NULL DEFAULT 0,
    archived         pg_snapshot NOT NULL DEFAULT '1:1:',
    archived_version bigint      NOT NULL DEFAULT 0,
    archived_marked  bigint      NOT NULL DEFAULT 0
);

-- The own state of one row of notifications for one user, if the user has changed it. If read is NULL, "all" and the first visit decide
-- whether the row is read. If read is false, the row is unread until a later "all" contains it. The same is true of archived, on which
-- the first visit has no effect. read_version and archived_version are the versions of the user's row at the last change of read and
-- archived.
CREATE TABLE rowcast.inbox_states (
    recipient        text COLLATE "C" NOT NULL,
    id               bigint  NOT NULL,
    seen             boolean NOT NULL DEFAULT false,
    seen_at          timestamptz,
    read             boolean,
    read_at          timestamptz,
    read_version     bigint  NOT NULL DEFAULT 0,
    archived         boolean,
    archived_at      timestamptz,
    archived_version bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (recipient, id)
);
CREATE INDEX inbox_states_id_recipient_idx ON rowcast.inbox_states (id, recipient);
CREATE INDEX inbox_states_unread_idx ON rowcast.inbox_states (recipient, read_version) WHERE NOT read;
CREATE INDEX inbox_states_unarchived_idx ON rowcast.inbox_states (recipient, archived_version) WHERE NOT archived;

-- The last ten changes of each user that can be undone. ids are the rows whose own state was changed. For "all", the columns before,
-- before_version and before_marked are the values of inbox_users before the change. Otherwise they are NULL.
CREATE TABLE rowcast.inbox_changes (
    recipient text COLLATE "C" NOT NULL,
    version   bigint   NOT NULL,
    action    text     NOT NULL,
    ids       bigint[] NOT NULL,
    before         pg_snapshot,
    before_version bigint,
    before_marked  bigint,
    PRIMARY KEY (recipient, version)
);

-- cursor_snapshot() decodes a cursor. seen is the snapshot of the transactions that the cursor has seen completely. If xid is not NULL,
-- the cursor has also seen the rows of this transaction up to id. The function raises an error if the text is not a cursor, or if the
-- cursor is of another history of the database, or ahead of the database.
CREATE FUNCTION rowcast.cursor_snapshot(shown text, OUT seen pg_snapshot, OUT xid xid8, OUT id bigint) LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    part    CONSTANT text[] := regexp_match(shown, '^(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,17})-([1-9][0-9]{0,17})-'
                '(~(?:[g-z0-9._]{0,11}[A-Za-f])+)?-([0-9a-f]{8})-([0-9a-f]{8})(?:\.(0|[1-9][0-9]{0,18}))?$');
    highest CONSTANT bigint := part[3]::bigint;
    half    CONSTANT bigint := nullif(part[2], '0')::bigint;
    own     CONSTANT bigint := coalesce(pg_current_xact_id_if_assigned()::text::bigint, 0);
    present CONSTANT bigint := greatest(pg_snapshot_xmax(pg_current_snapshot())::text::bigint, own);
    anchor  CONSTANT numeric := coalesce(part[7], part[1])::numeric;
    xip     bigint[];
BEGIN
    -- Each gap between two transactions in flight is a number in base 32. encode_xip() describes the text.
    xip := ARRAY(SELECT x FROM (
        SELECT greatest(highest - sum(gap + 1) OVER (ORDER BY place), 0) AS x FROM (
            SELECT place, (SELECT sum((strpos('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._', substr(digits[1], i, 1)) - 1 & 31)::bigint
                    << 5 * (length(digits[1]) - i)) FROM generate_series(1, length(digits[1])) AS i) AS gap
            FROM regexp_matches(part[4], '[g-z0-9._]*[A-Za-f]', 'g') WITH ORDINALITY AS list (digits, place)) AS gaps) AS decoded ORDER BY x);
    -- The first digit of a gap of several digits is not zero, which is g.
    IF part IS NULL OR part[4] ~ '[~A-Za-f]g' OR cardinality(xip) > 4096 OR highest < 3 OR xip[1] < 3 OR half < 3 OR half > highest OR half = ANY (xip)
        OR greatest(part[1]::numeric, anchor) > 9223372036854775807 OR half IS NOT NULL AND part[1] = '0'
        OR half IS NULL AND part[1]::numeric <> anchor THEN
        RAISE EXCEPTION 'rowcast: malformed cursor "%"', left(shown, 100) USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Use the cursor of rowcast.inbox(), of rowcast.cursor() or of an event.';
    ELSIF part[5] <> rowcast.epoch_tag() AND NOT (CASE anchor
        WHEN 0 THEN part[6] = rowcast.database_tag()
        ELSE EXISTS (SELECT FROM rowcast.notifications AS n WHERE n.xid = (CASE WHEN half = highest THEN half ELSE highest - 1 END)::text::xid8
            AND n.id = anchor::bigint AND rowcast.anchor_tag(n.id, n.created_at) = part[6]) END) THEN
        RAISE EXCEPTION 'rowcast: the cursor is of another history of the database' USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'The server was restarted, restored or replaced, and the last row of the cursor no longer exists.',
            HINT = 'Load the list again and use its cursor.';
    ELSIF greatest(highest, half + 1) > present + 1 OR half <> own AND NOT pg_visible_in_snapshot(half::text::xid8, pg_current_snapshot()) THEN
        RAISE EXCEPTION 'rowcast: the cursor is ahead of the database' USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'It names a transaction that this transaction cannot see or that the server has lost.',
            HINT = 'Load the list again and use its cursor. Call the function in a READ COMMITTED transaction.';
    END IF;
    xid := half::text::xid8;
    id := CASE WHEN half IS NOT NULL THEN part[1]::bigint END;
    xip := ARRAY(SELECT x FROM unnest(CASE WHEN half < highest THEN xip || half ELSE xip END) AS x ORDER BY x);
    seen := concat_ws(':', coalesce(xip[1], highest), highest, array_to_string(xip, ','));
END $$;

-- inbox_union() returns a snapshot that shows what a or b shows.
CREATE FUNCTION rowcast.inbox_union(a pg_snapshot, b pg_snapshot) RETURNS pg_snapshot LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    highest CONSTANT xid8 := greatest(pg_snapshot_xmax(a), pg_snapshot_xmax(b));
    running CONSTANT xid8[] := ARRAY(SELECT x FROM (SELECT pg_snapshot_xip(a) UNION SELECT pg_snapshot_xip(b)) AS xips (x)
        WHERE NOT pg_visible_in_snapshot(x, a) AND NOT pg_visible_in_snapshot(x, b) ORDER BY x);
BEGIN
    RETURN concat_ws(':', coalesce(running[1], highest), highest, array_to_string(running, ','))::pg_snapshot;
END $$;

-- inbox_plain() returns a row of a user whose snapshots are not compressed. PostgreSQL stores long snapshots in compressed form, and each
-- call of a function with such a value decompresses it again. A snapshot is long if many transactions were in progress, or if a client has
-- made up a cursor.
CREATE FUNCTION rowcast.inbox_plain(u rowcast.inbox_users) RETURNS rowcast.inbox_users LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    u.visited := u.visited::text::pg_snapshot;
    u.seen := u.seen::text::pg_snapshot;
    u.read := u.read::text::pg_snapshot;
    u.archived := u.archived::text::pg_snapshot;
    RETURN u;
END $$;

-- inbox_twin() returns the recipient of the events about the inbox of a user, or about deleted rows of a group or '*'. A long name is
-- replaced by the SHA-256 of its UTF-8 form, because the length of a recipient is limited.
CREATE FUNCTION rowcast.inbox_twin(recipient text) RETURNS text LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN octet_length(utf8) <= 128 THEN 'rowcast.inbox:' || recipient ELSE 'rowcast.inbox#' || encode(sha256(utf8), 'hex') END
    FROM convert_to(recipient, 'UTF8') AS utf8
$$;

-- inbox_has_control() reports whether a text has control characters, which the table refuses in recipients. They are the bytes from 00 to
-- 1f, 7f, and from c2 80 to c2 9f of the UTF-8 form.
CREATE FUNCTION rowcast.inbox_has_control(text) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(convert_to($1, 'UTF8'), 'hex') ~ '^(..)*([01].|7f|c2[89])' COLLATE "C"
$$;

-- inbox_recipients() returns the recipients whose rows a user receives. It raises an error if a name is invalid, or if there are too many
-- groups. No name begins with "rowcast.", because the events about inboxes have such recipients.
CREATE FUNCTION rowcast.inbox_recipients(recipient text, groups text[]) RETURNS text[] LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF recipient IS NULL OR recipient IN ('', '*') OR octet_length(recipient) > 256 OR starts_with(recipient, 'rowcast.')
        OR rowcast.inbox_has_control(recipient) THEN
        RAISE EXCEPTION 'rowcast: % cannot be a user', coalesce(quote_literal(left(recipient, 100)), 'NULL') USING ERRCODE = 'invalid_parameter_value',
            HINT = 'A user has from 1 to 256 bytes without control characters, is not *, and does not begin with "rowcast.".';
    ELSIF cardinality(groups) > 256 OR EXISTS (SELECT FROM unnest(groups) AS g
            WHERE g IS NULL OR g IN ('', '*') OR octet_length(g) > 256 OR starts_with(g, 'rowcast.'))
        OR rowcast.inbox_has_control(array_to_string(groups, '')) THEN
        RAISE EXCEPTION 'rowcast: invalid groups' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'There are at most 256 groups. A group has from 1 to 256 bytes without control characters, is not * or NULL, '
                'and does not begin with "rowcast.".';
    END IF;
    RETURN ARRAY(SELECT DISTINCT g COLLATE "C" FROM unnest(groups || ARRAY[recipient, '*']) AS g ORDER BY 1);
END $$;

-- inbox_visit() creates the row of a user at the first visit.
CREATE FUNCTION rowcast.inbox_visit(me text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM rowcast.inbox_users AS u WHERE u.recipient = me) THEN
        INSERT INTO rowcast.inbox_users (recipient, visited) SELECT me, c.seen FROM rowcast.cursor_snapshot(rowcast.cursor()) AS c
            ON CONFLICT DO NOTHING;
    END IF;
END $$;

-- These functions return the state of a row of notifications for a user. shared is true for a row of a group or '*'. Parameters whose names
-- begin with own are of the row of inbox_states, or NULL if there is none. The planner inlines these functions.
CREATE FUNCTION rowcast.inbox_is_seen(own_seen boolean, shared boolean, xid xid8, seen pg_snapshot, visited pg_snapshot)
    RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT pg_catalog.pg_visible_in_snapshot(xid, seen) OR coalesce(own_seen, false) OR shared AND pg_catalog.pg_visible_in_snapshot(xid, visited)
$$;
CREATE FUNCTION rowcast.inbox_is_read(own_read boolean, own_version bigint, shared boolean, xid xid8, read pg_snapshot, version bigint, visited pg_snapshot)
    RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE own_read WHEN true THEN true
        WHEN false THEN version OPERATOR(pg_catalog.>) own_version AND pg_catalog.pg_visible_in_snapshot(xid, read)
        ELSE pg_catalog.pg_visible_in_snapshot(xid, read) OR shared AND pg_catalog.pg_visible_in_snapshot(xid, visited) END
$$;
CREATE FUNCTION rowcast.inbox_is_archived(own_archived boolean, own_version bigint, xid xid8, archived pg_snapshot, version bigint)
    RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE own_archived WHEN true THEN true
        WHEN false THEN version OPERATOR(pg_catalog.>) own_version AND pg_catalog.pg_visible_in_snapshot(xid, archived)
        ELSE pg_catalog.pg_visible_in_snapshot(xid, archived) END
$$;

-- inbox_is_pending() reports whether a row counts as unseen (what = 'seen') or as unread (what = 'read'). An archived row does not count.
CREATE FUNCTION rowcast.inbox_is_pending(u rowcast.inbox_users, what text, shared boolean, xid xid8, own_seen boolean,
    own_read boolean, read_version bigint, own_archived boolean, archived_version bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT NOT CASE what WHEN 'seen' THEN rowcast.inbox_is_seen(own_seen, shared, xid, (u).seen, (u).visited)
            ELSE rowcast.inbox_is_read(own_read, read_version, shared, xid, (u).read, (u).read_version, (u).visited) END
        AND NOT rowcast.inbox_is_archived(own_archived, archived_version, xid, (u).archived, (u).archived_version)
$$;

-- inbox_hidden() returns the transactions whose rows a snapshot does not show, the newest first. The first element is the xmax of the
-- snapshot, which stands for all transactions from xmax on. The others were in progress in the snapshot, and have visible rows now. A
-- transaction that has no rows, or has not ended, is left out. So it does not matter how long the oldest transaction has been open.
CREATE FUNCTION rowcast.inbox_hidden(shown pg_snapshot) RETURNS xid8[] LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    RETURN pg_snapshot_xmax(shown) || ARRAY(SELECT x FROM pg_snapshot_xip(shown) AS x
        CROSS JOIN LATERAL (SELECT FROM rowcast.notifications AS n WHERE n.xid = x.x ORDER BY n.xid, n.id LIMIT 1) AS n
        WHERE pg_visible_in_snapshot(x, pg_current_snapshot()) ORDER BY x DESC);
END $$;

-- The next two functions return rows. The planner inlines them into their callers. The settings of the callers make the plans independent
-- of statistics: ordered index scans in nested loops. OFFSET 0 and ORDER BY in the functions lead to the same plans. Without
-- force_generic_plan, PostgreSQL would plan each call again, because a plan for the actual lengths of the arrays seems cheaper. A page would
-- then take twice as long.
--
-- inbox_rows() returns up to "scan" rows of a recipient, the newest first. They belong to the transactions in the array "hidden", which
-- inbox_hidden() returns, and have a lower (xid, id) than a given row. The array has the newest transaction first, and a nested loop keeps this order.
CREATE FUNCTION rowcast.inbox_rows(r text, hidden xid8[], before_xid xid8, before_id bigint, scan integer) RETURNS TABLE (xid xid8, id bigint)
    LANGUAGE sql STABLE AS $$
    SELECT n.xid, n.id FROM (
            SELECT x AS low, CASE WHEN x = hidden[1] THEN before_xid ELSE x END AS high FROM unnest(hidden) AS x WHERE x <= before_xid OFFSET 0) AS h
        CROSS JOIN LATERAL (SELECT n.xid, n.id FROM rowcast.notifications AS n WHERE n.recipient = inbox_rows.r AND n.xid >= h.low
                AND (n.xid, n.id) <= (h.high, CASE WHEN h.high = inbox_rows.before_xid THEN inbox_rows.before_id - 1 ELSE 9223372036854775807 END)
            ORDER BY n.recipient DESC, n.xid DESC, n.id DESC LIMIT inbox_rows.scan) AS n
        LIMIT scan
$$;

-- inbox_unmarked() returns the rows that a user has marked as unread (action = 'read') or has unarchived ('archive') one by one after a
-- version. If action is 'seen', there are none.
CREATE FUNCTION rowcast.inbox_unmarked(me text, action text, version bigint) RETURNS TABLE (id bigint, xid xid8, recipient text, seen boolean,
    read boolean, read_version bigint, archived boolean, archived_version bigint) LANGUAGE sql STABLE AS $$
    SELECT s.id, n.xid, n.recipient, s.seen, s.read, s.read_version, s.archived, s.archived_version FROM (
            (SELECT * FROM rowcast.inbox_states AS s WHERE action = 'read' AND s.recipient = me AND NOT s.read
                AND s.read_version > version ORDER BY s.recipient DESC, s.read_version DESC OFFSET 0)
            UNION ALL
            (SELECT * FROM rowcast.inbox_states AS s WHERE action = 'archive' AND s.recipient = me AND NOT s.archived
                AND s.archived_version > version ORDER BY s.recipient DESC, s.archived_version DESC OFFSET 0)) AS s
        CROSS JOIN LATERAL (SELECT n.xid, n.recipient FROM rowcast.notifications AS n WHERE n.id = s.id OFFSET 0) AS n
$$;

-- inbox_count() counts the rows that are not archived and not seen (what = 'seen') or not read ('read'), up to 100. It reads the newest rows
-- that "all" does not contain: up to 6,000 in total, or up to 200 of each recipient if that is more. If there are more rows, and fewer than
-- 100 were counted, it also reads as many of the oldest rows. more reports that the number may still be too low. Of the rows that "all"
-- contains, it counts only rows that the user has marked as unread or has unarchived one by one.
CREATE FUNCTION rowcast.inbox_count(u rowcast.inbox_users, recipients text[], what text, OUT number integer, OUT more boolean)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_variable
DECLARE
    -- own_ is for the rows of the user, shared_ for the rows of groups and '*'. _all is what "all" contains, _hidden is the rest.
    own_all       CONSTANT pg_snapshot := rowcast.inbox_union(CASE what WHEN 'seen' THEN u.seen ELSE u.read END, u.archived);
    shared_all    CONSTANT pg_snapshot := rowcast.inbox_union(own_all, u.visited);
    own_hidden    CONSTANT xid8[] := rowcast.inbox_hidden(own_all);
    shared_hidden CONSTANT xid8[] := rowcast.inbox_hidden(shared_all);
    latest        CONSTANT bigint := 9223372036854775807;
    scan          CONSTANT integer := greatest(200, 6000 / cardinality(recipients));
    oldest        integer;
BEGIN
    SELECT count(*) INTO number FROM (
        (SELECT FROM unnest(recipients) AS r CROSS JOIN LATERAL (
            SELECT FROM rowcast.inbox_rows(r, CASE WHEN r = u.recipient THEN own_hidden ELSE shared_hidden END, latest::text::xid8, latest, scan) AS n
                LEFT JOIN LATERAL (SELECT * FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND s.id = n.id OFFSET 0) AS s ON true
            WHERE rowcast.inbox_is_pending(u, what, r <> u.recipient, n.xid, s.seen, s.read, s.read_version, s.archived, s.archived_version)
            LIMIT 100) AS found)
        UNION ALL
        (SELECT FROM rowcast.inbox_unmarked(u.recipient, 'read', u.read_version) AS n
            WHERE what = 'read' AND n.recipient = ANY (recipients)
                AND pg_visible_in_snapshot(n.xid, CASE WHEN n.recipient = u.recipient THEN own_all ELSE shared_all END)
                AND rowcast.inbox_is_pending(u, what, n.recipient <> u.recipient, n.xid, n.seen, n.read, n.read_version, n.archived, n.archived_version))
        UNION ALL
        (SELECT FROM rowcast.inbox_unmarked(u.recipient, 'archive', u.archived_version) AS n
            WHERE (what = 'read' AND NOT n.read AND n.read_version > u.read_version) IS NOT TRUE -- counted above
                AND n.recipient = ANY (recipients)
                AND pg_visible_in_snapshot(n.xid, CASE WHEN n.recipient = u.recipient THEN own_all ELSE shared_all END)
                AND rowcast.inbox_is_pending(u, what, n.recipient <> u.recipient, n.xid, n.seen, n.read, n.read_version, n.archived, n.archived_version))
        LIMIT 100) AS found;
    more := number < 100 AND EXISTS (SELECT FROM unnest(recipients) AS r CROSS JOIN LATERAL (
        SELECT FROM rowcast.inbox_rows(r, CASE WHEN r = u.recipient THEN own_hidden ELSE shared_hidden END, latest::text::xid8, latest, scan + 1)
            OFFSET scan) AS beyond);
    IF more THEN
        SELECT count(*) INTO oldest FROM (SELECT FROM unnest(recipients) AS r CROSS JOIN LATERAL (
            SELECT FROM (SELECT n.id, n.xid FROM (
                    SELECT x AS low, CASE WHEN x = h.list[1] THEN latest::text::xid8 ELSE x END AS high
                        FROM (SELECT CASE WHEN r = u.recipient THEN own_hidden ELSE shared_hidden END) AS h (list), unnest(h.list) AS x ORDER BY x) AS h
                CROSS JOIN LATERAL (SELECT n.id, n.xid FROM rowcast.notifications AS n WHERE n.recipient = r.r AND n.xid >= h.low AND n.xid <= h.high
                    ORDER BY n.recipient, n.xid, n.id LIMIT scan) AS n LIMIT scan) AS n
                LEFT JOIN LATERAL (SELECT * FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND s.id = n.id OFFSET 0) AS s ON true
            WHERE rowcast.inbox_is_pending(u, what, r <> u.recipient, n.xid, s.seen, s.read, s.read_version, s.archived, s.archived_version)
            LIMIT 100) AS found LIMIT 100) AS found;
        number := greatest(number, oldest);
        more := number < 100;
    END IF;
END $$;

-- inbox_counts() returns the counts of unseen and of unread rows, and whether one of them may be too low.
CREATE FUNCTION rowcast.inbox_counts(u rowcast.inbox_users, recipients text[], OUT unseen integer, OUT unread integer, OUT more boolean)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.number, r.number, s.more OR r.more FROM rowcast.inbox_count(u, recipients, 'seen') AS s, rowcast.inbox_count(u, recipients, 'read') AS r
$$;

-- inbox_page() returns the result of inbox(). It is STABLE, so all of its statements read with the snapshot of its caller.
CREATE FUNCTION rowcast.inbox_page(me text, recipients text[], page integer, before_xid xid8, before_id bigint) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_variable
DECLARE
    -- A page reads at most this many rows of each recipient, 2,000 in total. If most of them are archived, it has fewer items.
    scan   CONSTANT integer := page + 1 + 2000 / cardinality(recipients);
    u      rowcast.inbox_users;
    hidden xid8[];
    xids   xid8[];
    ids    bigint[];
    sparse text[];
    last_xid xid8 := '0';
    last_id  bigint := 0;
    items  jsonb;
    counts record;
BEGIN
    SELECT * INTO u FROM rowcast.inbox_users AS users WHERE users.recipient = me;
    u := rowcast.inbox_plain(u);
    hidden := rowcast.inbox_hidden(u.archived);
    SELECT array_agg(f.xid ORDER BY f.xid DESC, f.id DESC), array_agg(f.id ORDER BY f.xid DESC, f.id DESC),
            ARRAY(SELECT r FROM unnest(recipients) AS r EXCEPT SELECT f2.r FROM unnest(array_agg(f.r)) AS f2 (r) GROUP BY f2.r HAVING count(*) > page)
        INTO xids, ids, sparse FROM (
        SELECT r, n.xid, n.id FROM unnest(recipients) AS r CROSS JOIN LATERAL (
            SELECT n.xid, n.id FROM rowcast.inbox_rows(r, hidden, before_xid, before_id, scan) AS n
                LEFT JOIN LATERAL (SELECT * FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND s.id = n.id OFFSET 0) AS s ON true
            WHERE NOT rowcast.inbox_is_archived(s.archived, s.archived_version, n.xid, u.archived, u.archived_version)
            LIMIT page + 1) AS n
        UNION ALL
        SELECT NULL, n.xid, n.id FROM rowcast.inbox_unmarked(u.recipient, 'archive', u.archived_version) AS n
            WHERE n.recipient = ANY (recipients) AND pg_visible_in_snapshot(n.xid, u.archived) AND (n.xid, n.id) < (before_xid, before_id)
        ) AS f;
    -- sparse are the recipients of which the search has not found more rows than a page has. If the limit scan has ended the search in the
    -- rows of such a recipient, the page ends there, because older rows of the recipient may be missing. The next page has the other rows.
    SELECT n.xid, n.id INTO last_xid, last_id FROM unnest(sparse) AS r CROSS JOIN LATERAL (
        SELECT n.xid, n.id FROM rowcast.inbox_rows(r, hidden, before_xid, before_id, scan) AS n OFFSET scan - 1) AS n
        ORDER BY n.xid DESC, n.id DESC LIMIT 1;
    IF cardinality(ids) > page AND (last_xid IS NULL OR (xids[page], ids[page]) >= (last_xid, last_id)) THEN
        last_xid := xids[page];
        last_id := ids[page];
    END IF;
    -- OFFSET 0: from version 16 on, the planner would read the whole index on (xid, id) to avoid the sort of the aggregate.
    SELECT coalesce(jsonb_agg(jsonb_build_object('id', n.id::text, 'recipient', n.recipient, 'event', n.event,
            'data', CASE WHEN small THEN n.data END, 'created_at', to_char(n.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'seen', rowcast.inbox_is_seen(s.seen, n.recipient <> u.recipient, n.xid, u.seen, u.visited),
            'read', rowcast.inbox_is_read(s.read, s.read_version, n.recipient <> u.recipient, n.xid, u.read, u.read_version, u.visited))
            || CASE WHEN small THEN '{}' ELSE '{"too_large": true}'::jsonb END ORDER BY n.xid DESC, n.id DESC), '[]') INTO items
        FROM unnest(xids[1:page], ids[1:page]) AS f (xid, id)
        CROSS JOIN LATERAL (SELECT n.id, n.xid, n.recipient, n.event, n.data, n.created_at FROM rowcast.notifications AS n WHERE n.id = f.id OFFSET 0) AS n
        LEFT JOIN LATERAL (SELECT * FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND s.id = n.id OFFSET 0) AS s ON true
        CROSS JOIN LATERAL (SELECT CASE WHEN pg_column_size(n.data) > 65536 THEN false
            -- The result contains data in further levels. With data that is nested as deeply as the server allows, it would be nested too
            -- deeply. Each level takes at least 8 bytes before compression.
            WHEN pg_column_size(n.data #> '{}') > 2000 AND jsonb_path_exists(n.data::jsonb, 'strict $.**{256}') THEN false
            ELSE octet_length(n.data::text) <= 262144 END AS small) AS size
        WHERE last_xid IS NULL OR (f.xid, f.id) >= (last_xid, last_id);
    counts := rowcast.inbox_counts(u, recipients);
    RETURN jsonb_build_object('user', u.recipient, 'items', items, 'before', last_xid || '.' || last_id, 'unseen', counts.unseen, 'unread', counts.unread,
        'more', counts.more, 'version', u.version, 'cursor', rowcast.cursor());
END $$;

-- inbox() returns a page of the inbox of a user, the newest rows first, and the counts.
CREATE FUNCTION rowcast.inbox(recipient text, groups text[] DEFAULT '{}', page integer DEFAULT 20, before text DEFAULT NULL) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    recipients CONSTANT text[] := rowcast.inbox_recipients(recipient, groups);
    key        CONSTANT text[] := regexp_match(before, '^([0-9]{1,18})\.([0-9]{1,19})$');
BEGIN
    IF page IS NULL OR page NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION 'rowcast: page must be from 1 to 100' USING ERRCODE = 'invalid_parameter_value';
    ELSIF before IS NOT NULL AND (key IS NULL OR key[2]::numeric > 9223372036854775807) THEN
        RAISE EXCEPTION 'rowcast: before must be the value of "before" in an earlier result' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Leave it out for the first page.';
    END IF;
    PERFORM rowcast.inbox_visit(recipient);
    RETURN rowcast.inbox_page(recipient, recipients, page,
        coalesce(key[1], '9223372036854775807')::xid8, coalesce(key[2], '9223372036854775807')::bigint);
END $$;
