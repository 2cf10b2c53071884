-- The inbox: what each user has seen, read and archived. sql/README.md describes it. No table refers to rowcast.notifications with a
-- foreign key, because test suites truncate that table. Two triggers of it remove the state of deleted rows.

-- inbox_version() returns the number of the newest migration of the inbox. TRUNCATE and a dump without rows do not change it.
CREATE FUNCTION rowcast.inbox_version() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';

-- A user has a row from the first visit on. Every change of the inbox of a user locks this row and increments version.
--
-- seen, read and archived are snapshots: "all" of the rows that they show have the state. A new value also shows what the old one has
-- shown. read_version is the version at which read was set: a row that was marked unread later stays unread. read_marked is the
-- version of the newest "mark all", which can be undone. archived_version and archived_marked are the same for archived.
-- The rows of groups and '*' that visited shows were sent before the first visit. They count as seen and read.
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

-- The state of one row of notifications for one user, if the user has changed it. read is true; or false if the user has marked a row
-- as unread that "all" or the first visit would make read; or NULL. archived is the same. A version is the version of the user at
-- the last change.
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

-- The last ten changes of each user that can be undone. ids are the rows whose own state was changed. For "all", the other columns are
-- the values of inbox_users before the change.
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
-- the cursor has also seen the rows of this transaction up to id. It raises an error if the text is not a cursor, or if the cursor is
-- not of the history of this database.
CREATE FUNCTION rowcast.cursor_snapshot(shown text, OUT seen pg_snapshot, OUT xid xid8, OUT id bigint) LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    part    CONSTANT text[] := regexp_match(shown, '^(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,17})-([1-9][0-9]{0,17})-'
                '(~(?:[g-z0-9._]{0,11}[A-Za-f])+)?-([0-9a-f]{8})-([0-9a-f]{8})(?:\.(0|[1-9][0-9]{0,18}))?$');
    highest CONSTANT bigint := part[3]::bigint;
    half    CONSTANT bigint := nullif(part[2], '0')::bigint;
    present CONSTANT bigint := greatest(pg_snapshot_xmax(pg_current_snapshot())::text::bigint, pg_current_xact_id_if_assigned()::text::bigint);
    anchor  CONSTANT numeric := coalesce(part[7], part[1])::numeric;
    xip     bigint[];
BEGIN
    -- Each gap between two transactions in flight is a number in base 32. encode_xip() describes the text.
    xip := ARRAY(SELECT x FROM (
        SELECT highest - sum(gap + 1) OVER (ORDER BY place) AS x FROM (
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
    ELSIF greatest(highest, half + 1) > present + 1 THEN
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
CREATE FUNCTION rowcast.inbox_union(a pg_snapshot, b pg_snapshot) RETURNS pg_snapshot LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT concat_ws(':', coalesce(min(x), highest), highest, coalesce(string_agg(x::text, ',' ORDER BY x), ''))::pg_snapshot
    FROM greatest(pg_snapshot_xmax(a), pg_snapshot_xmax(b)) AS highest
        LEFT JOIN LATERAL (SELECT x FROM pg_snapshot_xip(a) AS x UNION SELECT x FROM pg_snapshot_xip(b) AS x) AS running
        ON NOT pg_visible_in_snapshot(x, a) AND NOT pg_visible_in_snapshot(x, b)
    GROUP BY highest
$$;

-- inbox_twin() returns the recipient of the events about the inbox of a user, or about deleted rows of a group or '*'. A long name is
-- replaced by the SHA-256 of its UTF-8 form, because the length of a recipient is limited.
CREATE FUNCTION rowcast.inbox_twin(recipient text) RETURNS text LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN octet_length(utf8) <= 128 THEN 'rowcast.inbox:' || recipient ELSE 'rowcast.inbox#' || encode(sha256(utf8), 'hex') END
    FROM convert_to(recipient, 'UTF8') AS utf8
$$;

-- inbox_recipients() returns the recipients whose rows a user receives. It raises an error if a name is invalid. No name begins with
-- "rowcast.", because the events about inboxes have such recipients.
CREATE FUNCTION rowcast.inbox_recipients(recipient text, groups text[]) RETURNS text[] LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF recipient IS NULL OR recipient IN ('', '*') OR octet_length(recipient) > 256 OR starts_with(recipient, 'rowcast.') THEN
        RAISE EXCEPTION 'rowcast: % cannot be a user', coalesce(quote_literal(left(recipient, 100)), 'NULL') USING ERRCODE = 'invalid_parameter_value',
            HINT = 'A user has from 1 to 256 bytes, is not *, and does not begin with "rowcast.".';
    ELSIF cardinality(groups) > 256 OR EXISTS (SELECT FROM unnest(groups) AS g
        WHERE g IS NULL OR g IN ('', '*') OR octet_length(g) > 256 OR starts_with(g, 'rowcast.')) THEN
        RAISE EXCEPTION 'rowcast: invalid groups' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'There are at most 256 groups. A group has from 1 to 256 bytes, is not * or NULL, and does not begin with "rowcast.".';
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

-- The state of a row n for the user u. own is the row of inbox_states, with NULLs if there is none. The planner inlines these functions.
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

CREATE FUNCTION rowcast.inbox_is_pending(u rowcast.inbox_users, what text, shared boolean, xid xid8, own_seen boolean,
    own_read boolean, read_version bigint, own_archived boolean, archived_version bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT NOT CASE what WHEN 'seen' THEN rowcast.inbox_is_seen(own_seen, shared, xid, (u).seen, (u).visited)
            ELSE rowcast.inbox_is_read(own_read, read_version, shared, xid, (u).read, (u).read_version, (u).visited) END
        AND NOT rowcast.inbox_is_archived(own_archived, archived_version, xid, (u).archived, (u).archived_version)
$$;

-- inbox_count() counts the rows that are not archived and not seen (what = 'seen') or not read ('read'), up to 100. floor is the lowest
-- transaction of which "all" does not contain all rows. From there on, inbox_count() reads the newest rows: 6,000 in total,
-- and at least 200 of each recipient. If that is not enough, because the user has seen or read very many rows one by one, it also
-- reads as many of the oldest rows. more reports that the number may still be too low. Below floor, only rows count that the user has marked as unread or has
-- unarchived one by one.
--
-- The settings of the functions, ORDER BY and OFFSET 0 make the plans independent of statistics: ordered index scans.
CREATE FUNCTION rowcast.inbox_count(u rowcast.inbox_users, recipients text[], what text, OUT number integer, OUT more boolean)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off SET jit = off AS $$
DECLARE
    floor        CONSTANT xid8 := greatest(pg_snapshot_xmin(CASE what WHEN 'seen' THEN u.seen ELSE u.read END), pg_snapshot_xmin(u.archived));
    shared_floor CONSTANT xid8 := greatest(floor, pg_snapshot_xmin(u.visited));
    scan         CONSTANT integer := greatest(200, 6000 / cardinality(recipients));
    oldest       integer;
BEGIN
    SELECT count(*) INTO number FROM (
        (SELECT FROM unnest(recipients) AS r CROSS JOIN LATERAL (
            SELECT FROM (SELECT n.id, n.xid FROM rowcast.notifications AS n
                    WHERE n.recipient = r AND n.xid >= CASE WHEN r = u.recipient THEN floor ELSE shared_floor END
                    ORDER BY n.recipient DESC, n.xid DESC, n.id DESC LIMIT scan) AS n
                LEFT JOIN LATERAL (SELECT * FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND s.id = n.id OFFSET 0) AS s ON true
            WHERE rowcast.inbox_is_pending(u, what, r <> u.recipient, n.xid, s.seen, s.read, s.read_version, s.archived, s.archived_version)
            LIMIT 100) AS found)
        UNION ALL
        (SELECT FROM (SELECT * FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND NOT s.read
                    AND s.read_version > u.read_version ORDER BY s.recipient DESC, s.read_version DESC OFFSET 0) AS s
                CROSS JOIN LATERAL (SELECT n.id, n.xid, n.recipient FROM rowcast.notifications AS n WHERE n.id = s.id OFFSET 0) AS n
            WHERE what = 'read' AND n.recipient = ANY (recipients) AND n.xid < CASE WHEN n.recipient = u.recipient THEN floor ELSE shared_floor END
                AND rowcast.inbox_is_pending(u, what, n.recipient <> u.recipient, n.xid, s.seen, s.read, s.read_version, s.archived, s.archived_version))
        UNION ALL
        (SELECT FROM (SELECT * FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND NOT s.archived
                    AND s.archived_version > u.archived_version ORDER BY s.recipient DESC, s.archived_version DESC OFFSET 0) AS s
                CROSS JOIN LATERAL (SELECT n.id, n.xid, n.recipient FROM rowcast.notifications AS n WHERE n.id = s.id OFFSET 0) AS n
            WHERE (what = 'read' AND NOT s.read AND s.read_version > u.read_version) IS NOT TRUE -- counted above
                AND n.recipient = ANY (recipients) AND n.xid < CASE WHEN n.recipient = u.recipient THEN floor ELSE shared_floor END
                AND rowcast.inbox_is_pending(u, what, n.recipient <> u.recipient, n.xid, s.seen, s.read, s.read_version, s.archived, s.archived_version))
        LIMIT 100) AS found;
    more := number < 100 AND EXISTS (SELECT FROM unnest(recipients) AS r CROSS JOIN LATERAL (
        SELECT FROM rowcast.notifications AS n WHERE n.recipient = r AND n.xid >= CASE WHEN r = u.recipient THEN floor ELSE shared_floor END
            ORDER BY n.recipient DESC, n.xid DESC, n.id DESC OFFSET scan LIMIT 1) AS beyond);
    IF more THEN
        SELECT count(*) INTO oldest FROM (SELECT FROM unnest(recipients) AS r CROSS JOIN LATERAL (
            SELECT FROM (SELECT n.id, n.xid FROM rowcast.notifications AS n
                    WHERE n.recipient = r AND n.xid >= CASE WHEN r = u.recipient THEN floor ELSE shared_floor END
                    ORDER BY n.recipient, n.xid, n.id LIMIT scan) AS n
                LEFT JOIN LATERAL (SELECT * FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND s.id = n.id OFFSET 0) AS s ON true
            WHERE rowcast.inbox_is_pending(u, what, r <> u.recipient, n.xid, s.seen, s.read, s.read_version, s.archived, s.archived_version)
            LIMIT 100) AS found LIMIT 100) AS found;
        number := greatest(number, oldest);
        more := number < 100;
    END IF;
END $$;

-- inbox_counts() returns both counts.
CREATE FUNCTION rowcast.inbox_counts(u rowcast.inbox_users, recipients text[], OUT unseen integer, OUT unread integer, OUT more boolean)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.number, r.number, s.more OR r.more FROM rowcast.inbox_count(u, recipients, 'seen') AS s, rowcast.inbox_count(u, recipients, 'read') AS r
$$;

-- inbox_page() returns the result of inbox(). It is STABLE, so all of its statements read with one snapshot: that of its caller.
CREATE FUNCTION rowcast.inbox_page(me text, recipients text[], page integer, before_xid xid8, before_id bigint) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off SET jit = off AS $$
DECLARE
    -- A page reads at most this many rows of each recipient, 2,000 in total. If most of them are archived, it has fewer items.
    scan   CONSTANT integer := page + 1 + 2000 / cardinality(recipients);
    u      rowcast.inbox_users;
    kept   xid8;
    xids   xid8[];
    ids    bigint[];
    sparse text[];
    last_xid xid8 := '0';
    last_id  bigint := 0;
    items  jsonb;
    counts record;
BEGIN
    SELECT * INTO u FROM rowcast.inbox_users AS users WHERE users.recipient = me;
    kept := pg_snapshot_xmin(u.archived);
    SELECT array_agg(f.xid ORDER BY f.xid DESC, f.id DESC), array_agg(f.id ORDER BY f.xid DESC, f.id DESC),
            ARRAY(SELECT r FROM unnest(recipients) AS r EXCEPT SELECT f2.r FROM unnest(array_agg(f.r)) AS f2 (r) GROUP BY f2.r HAVING count(*) > page)
        INTO xids, ids, sparse FROM (
        SELECT r, n.xid, n.id FROM unnest(recipients) AS r CROSS JOIN LATERAL (
            SELECT n.xid, n.id FROM (SELECT n.id, n.xid FROM rowcast.notifications AS n
                    WHERE n.recipient = r AND n.xid >= kept AND (n.xid, n.id) < (before_xid, before_id)
                    ORDER BY n.recipient DESC, n.xid DESC, n.id DESC LIMIT scan) AS n
                LEFT JOIN LATERAL (SELECT * FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND s.id = n.id OFFSET 0) AS s ON true
            WHERE NOT rowcast.inbox_is_archived(s.archived, s.archived_version, n.xid, u.archived, u.archived_version)
            LIMIT page + 1) AS n
        UNION ALL
        SELECT NULL, n.xid, n.id FROM (SELECT * FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND NOT s.archived
                    AND s.archived_version > u.archived_version ORDER BY s.recipient DESC, s.archived_version DESC OFFSET 0) AS s
                CROSS JOIN LATERAL (SELECT n.id, n.xid, n.recipient FROM rowcast.notifications AS n WHERE n.id = s.id OFFSET 0) AS n
            WHERE n.recipient = ANY (recipients) AND n.xid < kept AND (n.xid, n.id) < (before_xid, before_id)
        ) AS f;
    -- Rows below the last one that was read of any recipient belong to the next page.
    SELECT n.xid, n.id INTO last_xid, last_id FROM unnest(sparse) AS r CROSS JOIN LATERAL (
        SELECT n.xid, n.id FROM rowcast.notifications AS n
            WHERE n.recipient = r AND n.xid >= kept AND (n.xid, n.id) < (before_xid, before_id)
            ORDER BY n.recipient DESC, n.xid DESC, n.id DESC OFFSET scan - 1 LIMIT 1) AS n
        ORDER BY n.xid DESC, n.id DESC LIMIT 1;
    IF cardinality(ids) > page AND (last_xid IS NULL OR (xids[page], ids[page]) >= (last_xid, last_id)) THEN
        last_xid := xids[page];
        last_id := ids[page];
    END IF;
    SELECT coalesce(jsonb_agg(jsonb_build_object('id', n.id::text, 'recipient', n.recipient, 'event', n.event,
            'data', CASE WHEN small THEN n.data END, 'created_at', to_char(n.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'seen', rowcast.inbox_is_seen(s.seen, n.recipient <> u.recipient, n.xid, u.seen, u.visited),
            'read', rowcast.inbox_is_read(s.read, s.read_version, n.recipient <> u.recipient, n.xid, u.read, u.read_version, u.visited))
            || CASE WHEN small THEN '{}' ELSE '{"too_large": true}'::jsonb END ORDER BY n.xid DESC, n.id DESC), '[]') INTO items
        FROM unnest(xids[:page], ids[:page]) AS f (xid, id) JOIN rowcast.notifications AS n ON n.id = f.id
        LEFT JOIN LATERAL (SELECT * FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND s.id = n.id OFFSET 0) AS s ON true
        CROSS JOIN LATERAL (SELECT CASE WHEN pg_column_size(n.data) > 65536 THEN false ELSE octet_length(n.data::text) <= 262144 END AS small) AS size
        WHERE last_xid IS NULL OR (f.xid, f.id) >= (last_xid, last_id);
    counts := rowcast.inbox_counts(u, recipients);
    RETURN jsonb_build_object('items', items, 'before', last_xid || '.' || last_id, 'unseen', counts.unseen, 'unread', counts.unread,
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
        RAISE EXCEPTION 'rowcast: malformed key of a page' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Use the value of "before" in the result of rowcast.inbox().';
    END IF;
    PERFORM rowcast.inbox_visit(recipient);
    RETURN rowcast.inbox_page(recipient, recipients, page,
        coalesce(key[1], '9223372036854775807')::xid8, coalesce(key[2], '9223372036854775807')::bigint);
END $$;

-- inbox_set() changes the own state of rows. It ignores rows that are not for one of the recipients. It returns the ids of the rows
-- whose effective state has changed, and whether anything was written. A row that is already read because of "all" gets its own
-- state, too, so it stays read when "all" is undone. The lock on the rows is that of a foreign key: a row cannot be deleted meanwhile.
CREATE FUNCTION rowcast.inbox_set(u rowcast.inbox_users, recipients text[], action text, wanted bigint[], OUT ids bigint[], OUT written boolean)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
BEGIN
    WITH target AS MATERIALIZED (
        SELECT n.id, n.xid, n.recipient <> u.recipient AS shared FROM rowcast.notifications AS n
            WHERE n.id = ANY (wanted) AND n.recipient || '' = ANY (recipients) ORDER BY n.id FOR KEY SHARE -- || '': use the index on id
    ), state AS MATERIALIZED (
        SELECT t.id, s.seen, s.seen_at, s.read, s.read_at, coalesce(s.read_version, 0) AS read_version,
                s.archived, s.archived_at, coalesce(s.archived_version, 0) AS archived_version,
                rowcast.inbox_is_seen(s.seen, shared, t.xid, u.seen, u.visited) AS is_seen,
                rowcast.inbox_is_read(s.read, s.read_version, shared, t.xid, u.read, u.read_version, u.visited) AS is_read,
                rowcast.inbox_is_archived(s.archived, s.archived_version, t.xid, u.archived, u.archived_version) AS is_archived,
                pg_visible_in_snapshot(t.xid, u.read) OR shared AND pg_visible_in_snapshot(t.xid, u.visited) AS all_read,
                pg_visible_in_snapshot(t.xid, u.archived) AS all_archived
            FROM target AS t LEFT JOIN LATERAL (
                SELECT * FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND s.id = t.id OFFSET 0) AS s ON true
    ), changed AS (
        INSERT INTO rowcast.inbox_states AS old (recipient, id, seen, seen_at, read, read_at, read_version, archived, archived_at, archived_version)
        SELECT u.recipient, s.id,
            action IN ('seen', 'read') OR coalesce(s.seen, false),
            CASE WHEN action IN ('seen', 'read') THEN coalesce(s.seen_at, now()) ELSE s.seen_at END,
            CASE action WHEN 'read' THEN true WHEN 'unread' THEN CASE WHEN all_read THEN false END ELSE s.read END,
            CASE action WHEN 'read' THEN coalesce(s.read_at, now()) WHEN 'unread' THEN NULL ELSE s.read_at END,
            CASE WHEN action IN ('read', 'unread') THEN u.version + 1 ELSE s.read_version END,
            CASE action WHEN 'archive' THEN true WHEN 'unarchive' THEN CASE WHEN all_archived THEN false END ELSE s.archived END,
            CASE action WHEN 'archive' THEN coalesce(s.archived_at, now()) WHEN 'unarchive' THEN NULL ELSE s.archived_at END,
            CASE WHEN action IN ('archive', 'unarchive') THEN u.version + 1 ELSE s.archived_version END
        FROM state AS s WHERE CASE action WHEN 'seen' THEN NOT is_seen WHEN 'read' THEN s.read IS NOT TRUE WHEN 'unread' THEN is_read
            WHEN 'archive' THEN s.archived IS NOT TRUE WHEN 'unarchive' THEN is_archived END
        ON CONFLICT (recipient, id) DO UPDATE SET seen = excluded.seen, seen_at = excluded.seen_at,
            read = excluded.read, read_at = excluded.read_at, read_version = excluded.read_version,
            archived = excluded.archived, archived_at = excluded.archived_at, archived_version = excluded.archived_version
        RETURNING old.id
    )
    SELECT coalesce(array_agg(s.id ORDER BY s.id) FILTER (WHERE CASE action WHEN 'seen' THEN NOT is_seen WHEN 'read' THEN NOT is_read OR NOT is_seen
                WHEN 'unread' THEN is_read WHEN 'archive' THEN NOT is_archived WHEN 'unarchive' THEN is_archived END), '{}'),
            EXISTS (SELECT FROM changed)
        INTO ids, written FROM state AS s;
END $$;

-- inbox_finish() stores the row of a user with the next version, tells the streams of the user, and returns the result of the function
-- that made the change. If event is NULL, no stream needs to know.
CREATE FUNCTION rowcast.inbox_finish(u rowcast.inbox_users, recipients text[], written boolean, event jsonb, extra jsonb) RETURNS jsonb
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    counts record;
    result jsonb;
BEGIN
    IF written OR event IS NOT NULL THEN
        u.version := u.version + 1;
        UPDATE rowcast.inbox_users AS old SET version = u.version, seen = u.seen, read = u.read, read_version = u.read_version,
            read_marked = u.read_marked, archived = u.archived, archived_version = u.archived_version, archived_marked = u.archived_marked
            WHERE old.recipient = u.recipient;
    END IF;
    counts := rowcast.inbox_counts(u, recipients);
    result := jsonb_build_object('version', u.version, 'unseen', counts.unseen, 'unread', counts.unread, 'more', counts.more);
    IF event IS NOT NULL THEN
        INSERT INTO rowcast.notifications (recipient, data) VALUES (rowcast.inbox_twin(u.recipient), event || result);
    END IF;
    RETURN result || extra;
END $$;

-- inbox_lock() returns the row of a user and locks it, so that the changes of a user come one after the other.
CREATE FUNCTION rowcast.inbox_lock(me text) RETURNS rowcast.inbox_users LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u rowcast.inbox_users;
BEGIN
    PERFORM rowcast.inbox_visit(me);
    SELECT * INTO STRICT u FROM rowcast.inbox_users AS users WHERE users.recipient = me FOR UPDATE;
    RETURN u;
END $$;

-- inbox_remember() stores a change that can be undone, and forgets all but the last ten changes of the user.
CREATE FUNCTION rowcast.inbox_remember(u rowcast.inbox_users, action text, ids bigint[], by_all boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- A change with this version is left if a test suite has truncated only inbox_users.
    DELETE FROM rowcast.inbox_changes AS old WHERE old.recipient = u.recipient AND old.version > u.version;
    INSERT INTO rowcast.inbox_changes VALUES (u.recipient, u.version + 1, action, ids,
        CASE WHEN by_all THEN CASE action WHEN 'read' THEN u.read ELSE u.archived END END,
        CASE WHEN by_all THEN CASE action WHEN 'read' THEN u.read_version ELSE u.archived_version END END,
        CASE WHEN by_all THEN CASE action WHEN 'read' THEN u.read_marked ELSE u.archived_marked END END);
    DELETE FROM rowcast.inbox_changes AS old WHERE old.recipient = u.recipient AND old.version <= (
        SELECT c.version FROM rowcast.inbox_changes AS c WHERE c.recipient = u.recipient ORDER BY c.version DESC OFFSET 10 LIMIT 1);
END $$;

-- inbox_mark() changes the state of rows of a user: of some rows, or of all rows that a cursor has seen.
CREATE FUNCTION rowcast.inbox_mark(recipient text, action text, groups text[] DEFAULT '{}', ids bigint[] DEFAULT NULL, up_to text DEFAULT NULL)
    RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    recipients CONSTANT text[] := rowcast.inbox_recipients(recipient, groups);
    u       rowcast.inbox_users;
    changed record;
    event   jsonb;
    undo    text;
BEGIN
    IF action IS NULL OR action NOT IN ('seen', 'read', 'unread', 'archive', 'unarchive') THEN
        RAISE EXCEPTION 'rowcast: unknown action %', coalesce(quote_literal(left(action, 100)), 'NULL') USING ERRCODE = 'invalid_parameter_value',
            HINT = 'The actions are seen, read, unread, archive and unarchive.';
    ELSIF (ids IS NULL) = (up_to IS NULL) THEN
        RAISE EXCEPTION 'rowcast: either ids or up_to is needed' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'ids are the rows to mark. up_to is the cursor of the list whose rows are marked.';
    ELSIF cardinality(ids) > 1000 THEN
        RAISE EXCEPTION 'rowcast: more than 1,000 ids' USING ERRCODE = 'invalid_parameter_value';
    ELSIF up_to IS NOT NULL AND action IN ('unread', 'unarchive') THEN
        RAISE EXCEPTION 'rowcast: % needs ids', action USING ERRCODE = 'invalid_parameter_value',
            HINT = 'rowcast.inbox_undo() undoes "read" and "archive" up to a cursor.';
    END IF;
    IF up_to IS NOT NULL THEN
        RETURN rowcast.inbox_mark_all(recipient, recipients, action, up_to);
    END IF;
    u := rowcast.inbox_lock(recipient);
    changed := rowcast.inbox_set(u, recipients, action, ids);
    IF changed.ids <> '{}' THEN
        event := jsonb_build_object('action', action, 'ids', to_jsonb(changed.ids::text[]));
        IF action IN ('read', 'archive') THEN
            PERFORM rowcast.inbox_remember(u, action, changed.ids, false);
            undo := u.version + 1;
        END IF;
    END IF;
    RETURN rowcast.inbox_finish(u, recipients, changed.written, event, jsonb_build_object('undo', undo));
END $$;

-- inbox_would_change() reports whether a row that a snapshot shows does not have the state of an action yet. It also returns true if it
-- had to read too many rows. A change without an effect must not be told: the event is a row itself, so the cursor of the next list
-- differs, and two devices would tell each other for ever.
CREATE FUNCTION rowcast.inbox_would_change(u rowcast.inbox_users, recipients text[], action text, shown pg_snapshot) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off SET jit = off AS $$
DECLARE
    scan         CONSTANT integer := greatest(200, 6000 / cardinality(recipients));
    floor        CONSTANT xid8 := pg_snapshot_xmin(CASE action WHEN 'seen' THEN u.seen WHEN 'read' THEN u.read ELSE u.archived END);
    shared_floor CONSTANT xid8 := CASE action WHEN 'archive' THEN floor ELSE greatest(floor, pg_snapshot_xmin(u.visited)) END;
    highest      CONSTANT xid8 := pg_snapshot_xmax(shown);
BEGIN
    RETURN EXISTS (SELECT FROM unnest(recipients) AS r CROSS JOIN LATERAL (
        SELECT FROM (SELECT n.id, n.xid FROM rowcast.notifications AS n
                WHERE n.recipient = r AND n.xid >= CASE WHEN r = u.recipient THEN floor ELSE shared_floor END AND n.xid < highest
                ORDER BY n.recipient DESC, n.xid DESC, n.id DESC LIMIT scan) AS n
            LEFT JOIN LATERAL (SELECT * FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND s.id = n.id OFFSET 0) AS s ON true
        WHERE pg_visible_in_snapshot(n.xid, shown) AND NOT CASE action
            WHEN 'seen' THEN rowcast.inbox_is_seen(s.seen, r <> u.recipient, n.xid, u.seen, u.visited)
            WHEN 'read' THEN rowcast.inbox_is_read(s.read, s.read_version, r <> u.recipient, n.xid, u.read, u.read_version, u.visited)
            ELSE rowcast.inbox_is_archived(s.archived, s.archived_version, n.xid, u.archived, u.archived_version) END
        LIMIT 1) AS found)
    OR action = 'read' AND EXISTS (SELECT FROM (SELECT s.id FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND NOT s.read
            AND s.read_version > u.read_version ORDER BY s.recipient DESC, s.read_version DESC OFFSET 0) AS s
        CROSS JOIN LATERAL (SELECT n.xid, n.recipient FROM rowcast.notifications AS n WHERE n.id = s.id OFFSET 0) AS n
        WHERE n.recipient = ANY (recipients) AND pg_visible_in_snapshot(n.xid, shown))
    OR action = 'archive' AND EXISTS (SELECT FROM (SELECT s.id FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND NOT s.archived
            AND s.archived_version > u.archived_version ORDER BY s.recipient DESC, s.archived_version DESC OFFSET 0) AS s
        CROSS JOIN LATERAL (SELECT n.xid, n.recipient FROM rowcast.notifications AS n WHERE n.id = s.id OFFSET 0) AS n
        WHERE n.recipient = ANY (recipients) AND pg_visible_in_snapshot(n.xid, shown))
    OR EXISTS (SELECT FROM unnest(recipients) AS r CROSS JOIN LATERAL (
        SELECT FROM rowcast.notifications AS n
            WHERE n.recipient = r AND n.xid >= CASE WHEN r = u.recipient THEN floor ELSE shared_floor END AND n.xid < highest
            ORDER BY n.recipient DESC, n.xid DESC, n.id DESC OFFSET scan LIMIT 1) AS beyond);
END $$;

-- inbox_mark_all() marks all rows that a cursor has seen. It writes one row, and the own state of
-- - rows of the transaction in whose middle the cursor is, 1,000 at most, and
-- - if the list was older than an earlier "all": rows that were marked as unread one by one.
CREATE FUNCTION rowcast.inbox_mark_all(me text, recipients text[], action text, up_to text) RETURNS jsonb
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
DECLARE
    shown   record;
    u       rowcast.inbox_users;
    old     rowcast.inbox_users;
    own     record;
    changed boolean;
    newest  boolean;
    swept   bigint[] := '{}';
    undo    text;
BEGIN
    shown := rowcast.cursor_snapshot(up_to);
    u := rowcast.inbox_lock(me);
    old := u;
    own := rowcast.inbox_set(u, recipients, action, ARRAY(SELECT n.id FROM unnest(recipients) AS r CROSS JOIN LATERAL (
            SELECT n.id FROM rowcast.notifications AS n WHERE n.recipient = r AND n.xid = shown.xid AND n.id <= shown.id
            ORDER BY n.recipient DESC, n.xid DESC, n.id DESC LIMIT 1000) AS n ORDER BY n.id DESC LIMIT 1000));
    changed := rowcast.inbox_would_change(u, recipients, action, shown.seen) OR own.ids <> '{}';
    IF action IN ('seen', 'read') THEN
        u.seen := rowcast.inbox_union(u.seen, shown.seen);
    END IF;
    IF action = 'read' THEN
        u.read := rowcast.inbox_union(u.read, shown.seen);
        newest := rowcast.inbox_union(u.read, u.visited)::text = shown.seen::text;
        IF changed AND newest THEN
            u.read_version := u.version + 1;
        ELSIF changed THEN
            WITH swept AS (UPDATE rowcast.inbox_states AS s SET read = NULL, read_version = u.version + 1 FROM rowcast.notifications AS n
                WHERE s.recipient = me AND NOT s.read AND n.id = s.id AND pg_visible_in_snapshot(n.xid, shown.seen)
                    AND NOT (s.read_version < old.read_version AND pg_visible_in_snapshot(n.xid, old.read)) RETURNING s.id)
            SELECT coalesce(array_agg(s.id), '{}') INTO swept FROM swept AS s;
        END IF;
    ELSIF action = 'archive' THEN
        u.archived := rowcast.inbox_union(u.archived, shown.seen);
        newest := u.archived::text = shown.seen::text;
        IF changed AND newest THEN
            u.archived_version := u.version + 1;
        ELSIF changed THEN
            WITH swept AS (UPDATE rowcast.inbox_states AS s SET archived = NULL, archived_version = u.version + 1 FROM rowcast.notifications AS n
                WHERE s.recipient = me AND NOT s.archived AND n.id = s.id AND pg_visible_in_snapshot(n.xid, shown.seen)
                    AND NOT (s.archived_version < old.archived_version AND pg_visible_in_snapshot(n.xid, old.archived)) RETURNING s.id)
            SELECT coalesce(array_agg(s.id), '{}') INTO swept FROM swept AS s;
        END IF;
    END IF;
    IF NOT changed AND u::text <> old::text THEN -- later calls read fewer rows
        UPDATE rowcast.inbox_users AS users SET seen = u.seen, read = u.read, archived = u.archived WHERE users.recipient = me;
    ELSIF changed AND action IN ('read', 'archive') THEN
        PERFORM rowcast.inbox_remember(old, action, own.ids || swept, true);
        undo := u.version + 1;
        IF action = 'read' THEN
            u.read_marked := u.version + 1;
        ELSE
            u.archived_marked := u.version + 1;
        END IF;
    END IF;
    RETURN rowcast.inbox_finish(u, recipients, own.written, CASE WHEN changed THEN jsonb_build_object('action', action, 'up_to', up_to) END,
        jsonb_build_object('undo', undo));
END $$;

-- inbox_undo() undoes a change of inbox_mark(), except for rows that were changed since.
CREATE FUNCTION rowcast.inbox_undo(recipient text, undo text, groups text[] DEFAULT '{}') RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    recipients CONSTANT text[] := rowcast.inbox_recipients(recipient, groups);
    me      CONSTANT text := recipient;
    u       rowcast.inbox_users;
    change  rowcast.inbox_changes;
    undone  bigint[] := '{}';
    all_undone boolean := false;
    event   jsonb;
BEGIN
    IF undo IS NULL OR undo !~ '^[1-9][0-9]{0,17}$' THEN
        RAISE EXCEPTION 'rowcast: malformed undo' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Use the value of "undo" in the result of rowcast.inbox_mark().';
    END IF;
    u := rowcast.inbox_lock(me);
    DELETE FROM rowcast.inbox_changes AS c WHERE c.recipient = me AND c.version = undo::bigint RETURNING * INTO change;
    -- "All" is undone only if it is the newest one. The own states that it has changed belong to it.
    IF change.action = 'read' AND (change.before IS NULL OR u.read_marked = change.version) THEN
        IF change.before IS NOT NULL THEN
            u.read := change.before;
            u.read_version := change.before_version;
            u.read_marked := change.before_marked;
            all_undone := true;
        END IF;
        WITH restored AS (UPDATE rowcast.inbox_states AS s SET read_at = NULL, read_version = u.version + 1,
                read = CASE WHEN all_undone OR pg_visible_in_snapshot(n.xid, u.read)
                    OR n.recipient <> me AND pg_visible_in_snapshot(n.xid, u.visited) THEN false END
            FROM rowcast.notifications AS n
            WHERE s.recipient = me AND s.id = ANY (change.ids) AND s.read IS NOT FALSE AND s.read_version = change.version AND n.id = s.id
                AND NOT (u.read_marked > change.version AND pg_visible_in_snapshot(n.xid, u.read)) RETURNING s.id)
        SELECT coalesce(array_agg(r.id ORDER BY r.id), '{}') INTO undone FROM restored AS r;
    ELSIF change.action = 'archive' AND (change.before IS NULL OR u.archived_marked = change.version) THEN
        IF change.before IS NOT NULL THEN
            u.archived := change.before;
            u.archived_version := change.before_version;
            u.archived_marked := change.before_marked;
            all_undone := true;
        END IF;
        WITH restored AS (UPDATE rowcast.inbox_states AS s SET archived_at = NULL, archived_version = u.version + 1,
                archived = CASE WHEN all_undone OR pg_visible_in_snapshot(n.xid, u.archived) THEN false END
            FROM rowcast.notifications AS n
            WHERE s.recipient = me AND s.id = ANY (change.ids) AND s.archived IS NOT FALSE AND s.archived_version = change.version AND n.id = s.id
                AND NOT (u.archived_marked > change.version AND pg_visible_in_snapshot(n.xid, u.archived)) RETURNING s.id)
        SELECT coalesce(array_agg(r.id ORDER BY r.id), '{}') INTO undone FROM restored AS r;
    END IF;
    IF all_undone THEN
        event := '{"action": "reload"}';
    ELSIF undone <> '{}' THEN
        event := jsonb_build_object('action', 'un' || change.action, 'ids', to_jsonb(undone::text[]));
    END IF;
    RETURN rowcast.inbox_finish(u, recipients, false, event, jsonb_build_object('undone', event IS NOT NULL));
END $$;

-- inbox_deleted() removes the state of deleted rows, and tells the streams of their recipients, unless retention has deleted the rows.
-- Nobody is told if no user with an inbox can have received a row.
CREATE FUNCTION rowcast.inbox_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off SET jit = off AS $$
BEGIN
    DELETE FROM rowcast.inbox_states AS s WHERE s.id = ANY (ARRAY(SELECT g.id FROM gone AS g));
    IF current_setting('rowcast.retention', true) = 'on' OR NOT EXISTS (SELECT FROM rowcast.inbox_users) THEN
        RETURN NULL;
    END IF;
    IF (SELECT count(*) FROM (SELECT FROM gone AS g WHERE NOT starts_with(g.recipient, 'rowcast.') GROUP BY g.recipient LIMIT 1001) AS r) > 1000 THEN
        INSERT INTO rowcast.notifications (recipient, data) VALUES (rowcast.inbox_twin('*'), '{"action": "reload"}');
        RETURN NULL;
    END IF;
    INSERT INTO rowcast.notifications (recipient, data)
        SELECT rowcast.inbox_twin(g.recipient), CASE WHEN count(*) > 1000 THEN '{"action": "reload"}'
                ELSE jsonb_build_object('action', 'delete', 'ids', jsonb_agg(g.id::text ORDER BY g.id)) END
            FROM gone AS g WHERE NOT starts_with(g.recipient, 'rowcast.') GROUP BY g.recipient;
    RETURN NULL;
END $$;
CREATE TRIGGER inbox_deleted AFTER DELETE ON rowcast.notifications REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION rowcast.inbox_deleted();
ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER inbox_deleted;

-- inbox_truncated() removes the state of all rows. TRUNCATE would fail here if the statement truncates inbox_states, too.
CREATE FUNCTION rowcast.inbox_truncated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM rowcast.inbox_states;
    RETURN NULL;
END $$;
CREATE TRIGGER inbox_truncated AFTER TRUNCATE ON rowcast.notifications
    FOR EACH STATEMENT EXECUTE FUNCTION rowcast.inbox_truncated();
ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER inbox_truncated;

-- Only the roles that rowcast migrate grants the right may call the functions.
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'rowcast'::regnamespace AND (proname ~ '^inbox' OR proname = 'cursor_snapshot') LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;
