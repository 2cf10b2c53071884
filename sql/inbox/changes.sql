-- Changes of the inbox: marks, undo and deleted rows. inbox.sql comes before this file.

-- inbox_set() changes the own state of rows, in inbox_states. It ignores rows that are not for one of the recipients. It returns the ids of the rows
-- whose effective state has changed, and whether anything was written. A row that is already read or archived because of "all" gets its own
-- state, too, so that the row keeps the state when "all" is undone. FOR KEY SHARE prevents the deletion of the rows meanwhile.
CREATE FUNCTION rowcast.inbox_set(u rowcast.inbox_users, recipients text[], action text, wanted bigint[], OUT ids bigint[], OUT written boolean)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET jit = off AS $$
#variable_conflict use_variable
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

-- inbox_finish() ends a change. It stores the row of the user with the next version, inserts an event for the streams of the user, and
-- returns the result of the calling function. If event is NULL, it inserts no event. If nothing was written either, it stores nothing.
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

-- inbox_limit() raises an error if a user has marked more than 5,000 rows as unread one by one since "all" (action = 'unread'), or has
-- unarchived as many ('unarchive'). Each call of inbox() reads the state of all these rows.
CREATE FUNCTION rowcast.inbox_limit(u rowcast.inbox_users, action text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
    IF action = 'unread' AND EXISTS (SELECT FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND NOT s.read
            AND s.read_version > u.read_version OFFSET 5000) THEN
        RAISE EXCEPTION 'rowcast: more than 5,000 rows would be marked as unread one by one: mark all rows as read first'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF action = 'unarchive' AND EXISTS (SELECT FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND NOT s.archived
            AND s.archived_version > u.archived_version OFFSET 5000) THEN
        RAISE EXCEPTION 'rowcast: more than 5,000 rows would be unarchived one by one: archive all rows first'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

-- inbox_lock() returns the row of a user and locks it, so that the changes of a user come one after the other.
CREATE FUNCTION rowcast.inbox_lock(me text) RETURNS rowcast.inbox_users LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u rowcast.inbox_users;
BEGIN
    PERFORM rowcast.inbox_visit(me);
    SELECT * INTO STRICT u FROM rowcast.inbox_users AS users WHERE users.recipient = me FOR UPDATE;
    RETURN rowcast.inbox_plain(u);
END $$;

-- inbox_remember() stores a change that can be undone, and deletes all but the last ten of these changes of the user.
CREATE FUNCTION rowcast.inbox_remember(u rowcast.inbox_users, action text, ids bigint[], by_all boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Such changes exist if a test suite has truncated only inbox_users, so that the versions begin again.
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
        RAISE EXCEPTION 'rowcast: give either ids or up_to' USING ERRCODE = 'invalid_parameter_value',
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
        PERFORM rowcast.inbox_limit(u, action);
        event := jsonb_build_object('action', action, 'ids', to_jsonb(changed.ids::text[]));
        IF action IN ('read', 'archive') THEN
            PERFORM rowcast.inbox_remember(u, action, changed.ids, false);
            undo := u.version + 1;
        END IF;
    END IF;
    RETURN rowcast.inbox_finish(u, recipients, changed.written, event, jsonb_build_object('undo', undo));
END $$;

-- inbox_would_change() reports whether an action changes any row that a snapshot shows. If it cannot know, because there are too many rows
-- to read, it returns true. "All" without an effect must not send an event. Otherwise two devices of a user that call "all" whenever they
-- receive an event would answer each other's events without end.
CREATE FUNCTION rowcast.inbox_would_change(u rowcast.inbox_users, recipients text[], action text, shown pg_snapshot) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    own_all    CONSTANT pg_snapshot := CASE action WHEN 'seen' THEN u.seen WHEN 'read' THEN u.read ELSE u.archived END;
    own_hidden CONSTANT xid8[] := rowcast.inbox_hidden(own_all);
    shared_hidden CONSTANT xid8[] := CASE action WHEN 'archive' THEN own_hidden
        ELSE rowcast.inbox_hidden(rowcast.inbox_union(own_all, u.visited)) END;
    highest    CONSTANT xid8 := pg_snapshot_xmax(shown);
    scan       CONSTANT integer := greatest(200, 6000 / cardinality(recipients));
BEGIN
    RETURN EXISTS (SELECT FROM unnest(recipients) AS r CROSS JOIN LATERAL (
        SELECT FROM rowcast.inbox_rows(r, CASE WHEN r = u.recipient THEN own_hidden ELSE shared_hidden END, highest, 0, scan) AS n
            LEFT JOIN LATERAL (SELECT * FROM rowcast.inbox_states AS s WHERE s.recipient = u.recipient AND s.id = n.id OFFSET 0) AS s ON true
        WHERE pg_visible_in_snapshot(n.xid, shown) AND NOT CASE action
            WHEN 'seen' THEN rowcast.inbox_is_seen(s.seen, r <> u.recipient, n.xid, u.seen, u.visited)
            WHEN 'read' THEN rowcast.inbox_is_read(s.read, s.read_version, r <> u.recipient, n.xid, u.read, u.read_version, u.visited)
            ELSE rowcast.inbox_is_archived(s.archived, s.archived_version, n.xid, u.archived, u.archived_version) END
        LIMIT 1) AS found)
    OR EXISTS (SELECT FROM rowcast.inbox_unmarked(u.recipient, action, CASE action WHEN 'read' THEN u.read_version ELSE u.archived_version END) AS n
        WHERE n.recipient = ANY (recipients) AND pg_visible_in_snapshot(n.xid, shown))
    OR EXISTS (SELECT FROM unnest(recipients) AS r CROSS JOIN LATERAL (
        SELECT FROM rowcast.inbox_rows(r, CASE WHEN r = u.recipient THEN own_hidden ELSE shared_hidden END, highest, 0, scan + 1)
            OFFSET scan) AS beyond);
END $$;

-- inbox_mark_all() marks all rows that a cursor has seen, by a change of the user's row in inbox_users. In two cases it also changes
-- rows of inbox_states:
-- - If the cursor has seen only a part of a transaction: for the rows of this part, 1,000 at most.
-- - If an earlier "all" had the cursor of a newer list: for the rows that the user has marked as unread, or unarchived, one by one.
CREATE FUNCTION rowcast.inbox_mark_all(me text, recipients text[], action text, up_to text) RETURNS jsonb
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_variable
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
            SELECT n.id FROM rowcast.notifications AS n WHERE n.recipient = r.r AND n.xid = shown.xid AND n.id <= shown.id
            ORDER BY n.recipient DESC, n.xid DESC, n.id DESC LIMIT 1000) AS n ORDER BY n.id DESC LIMIT 1000));
    changed := rowcast.inbox_would_change(u, recipients, action, shown.seen) OR own.ids <> '{}';
    IF action <> 'archive' THEN
        u.seen := rowcast.inbox_union(u.seen, shown.seen);
    END IF;
    IF action = 'read' THEN
        u.read := rowcast.inbox_union(u.read, shown.seen);
        newest := rowcast.inbox_union(u.read, u.visited)::text = shown.seen::text;
    ELSIF action = 'archive' THEN
        u.archived := rowcast.inbox_union(u.archived, shown.seen);
        newest := u.archived::text = shown.seen::text;
    END IF;
    IF NOT changed AND u::text <> old::text THEN -- no state changes, but later calls read fewer rows
        UPDATE rowcast.inbox_users AS users SET seen = u.seen, read = u.read, archived = u.archived WHERE users.recipient = me;
    ELSIF changed AND action <> 'seen' THEN
        IF newest AND action = 'read' THEN
            u.read_version := u.version + 1;
        ELSIF newest THEN
            u.archived_version := u.version + 1;
        ELSE
            swept := ARRAY(SELECT n.id FROM rowcast.inbox_unmarked(me, action, -1) AS n WHERE pg_visible_in_snapshot(n.xid, shown.seen)
                AND NOT CASE action WHEN 'read' THEN n.read_version < old.read_version AND pg_visible_in_snapshot(n.xid, old.read)
                    ELSE n.archived_version < old.archived_version AND pg_visible_in_snapshot(n.xid, old.archived) END);
            UPDATE rowcast.inbox_states AS s SET
                read = CASE action WHEN 'read' THEN NULL ELSE s.read END,
                read_version = CASE action WHEN 'read' THEN u.version + 1 ELSE s.read_version END,
                archived = CASE action WHEN 'archive' THEN NULL ELSE s.archived END,
                archived_version = CASE action WHEN 'archive' THEN u.version + 1 ELSE s.archived_version END
                WHERE s.recipient = me AND s.id = ANY (swept);
        END IF;
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

-- inbox_undo() undoes a change of inbox_mark(). It skips rows that were changed again meanwhile. If it undoes nothing, the change can be
-- undone later, for example after the undo of a newer "all".
CREATE FUNCTION rowcast.inbox_undo(recipient text, undo text, groups text[] DEFAULT '{}') RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_variable
DECLARE
    recipients CONSTANT text[] := rowcast.inbox_recipients(recipient, groups);
    me      CONSTANT text := recipient;
    u       rowcast.inbox_users;
    change  rowcast.inbox_changes;
    marked  bigint;
    shown   pg_snapshot;
    undone  bigint[] := '{}';
    all_undone boolean := false;
    event   jsonb;
BEGIN
    IF undo IS NULL OR undo !~ '^[1-9][0-9]{0,17}$' THEN
        RAISE EXCEPTION 'rowcast: malformed undo' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Use the value of "undo" in the result of rowcast.inbox_mark().';
    END IF;
    u := rowcast.inbox_lock(me);
    SELECT * INTO change FROM rowcast.inbox_changes AS c WHERE c.recipient = me AND c.version = undo::bigint;
    -- An "all" is undone only if it is the newest "all" of this action. The rows' own states that it has changed are undone with it.
    marked := CASE change.action WHEN 'read' THEN u.read_marked ELSE u.archived_marked END;
    IF change.before IS NULL OR marked = change.version THEN
        all_undone := change.before IS NOT NULL;
        IF all_undone THEN
            marked := change.before_marked;
            IF change.action = 'read' THEN
                u.read := change.before;
                u.read_version := change.before_version;
                u.read_marked := marked;
            ELSE
                u.archived := change.before;
                u.archived_version := change.before_version;
                u.archived_marked := marked;
            END IF;
            u := rowcast.inbox_plain(u);
        END IF;
        shown := CASE change.action WHEN 'read' THEN u.read ELSE u.archived END;
        WITH restored AS (UPDATE rowcast.inbox_states AS s SET
                read = CASE change.action WHEN 'read' THEN CASE WHEN all_undone OR pg_visible_in_snapshot(n.xid, shown)
                    OR n.recipient <> me AND pg_visible_in_snapshot(n.xid, u.visited) THEN false END ELSE s.read END,
                read_at = CASE change.action WHEN 'read' THEN NULL ELSE s.read_at END,
                read_version = CASE change.action WHEN 'read' THEN u.version + 1 ELSE s.read_version END,
                archived = CASE change.action WHEN 'archive' THEN CASE WHEN all_undone OR pg_visible_in_snapshot(n.xid, shown) THEN false END ELSE s.archived END,
                archived_at = CASE change.action WHEN 'archive' THEN NULL ELSE s.archived_at END,
                archived_version = CASE change.action WHEN 'archive' THEN u.version + 1 ELSE s.archived_version END
            FROM rowcast.notifications AS n
            WHERE s.recipient = me AND s.id = ANY (change.ids) AND n.id = s.id AND NOT (marked > change.version AND pg_visible_in_snapshot(n.xid, shown))
                AND CASE change.action WHEN 'read' THEN s.read IS NOT FALSE AND s.read_version = change.version
                    ELSE s.archived IS NOT FALSE AND s.archived_version = change.version END
            RETURNING s.id)
        SELECT coalesce(array_agg(r.id ORDER BY r.id), '{}') INTO undone FROM restored AS r;
    END IF;
    IF all_undone THEN
        event := '{"action": "reload"}';
    ELSIF undone <> '{}' THEN
        event := jsonb_build_object('action', 'un' || change.action, 'ids', to_jsonb(undone::text[]));
    END IF;
    IF event IS NOT NULL THEN
        PERFORM rowcast.inbox_limit(u, 'un' || change.action);
        DELETE FROM rowcast.inbox_changes AS c WHERE c.recipient = me AND c.version = change.version;
    END IF;
    RETURN rowcast.inbox_finish(u, recipients, false, event, jsonb_build_object('undone', event IS NOT NULL));
END $$;

-- inbox_deleted() removes the state of deleted rows, and inserts events for the streams of their recipients. It inserts no event if
-- retention has deleted the rows, or if no user has an inbox. It also inserts none for rows that are events about inboxes. It does
-- nothing for another table: a role that may call it, for example after a restore without privileges, could make it a trigger of its
-- own table.
CREATE FUNCTION rowcast.inbox_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off SET jit = off AS $$
BEGIN
    IF TG_RELID <> 'rowcast.notifications'::regclass THEN
        RETURN NULL;
    END IF;
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
                ELSE jsonb_build_object('action', 'delete', 'ids', jsonb_agg(g.id::text ORDER BY g.id) FILTER (WHERE g.place <= 1000)) END
            FROM (SELECT o.recipient, o.id, row_number() OVER (PARTITION BY o.recipient) AS place
                FROM gone AS o WHERE NOT starts_with(o.recipient, 'rowcast.')) AS g GROUP BY g.recipient;
    RETURN NULL;
END $$;
CREATE TRIGGER inbox_deleted AFTER DELETE ON rowcast.notifications REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION rowcast.inbox_deleted();
ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER inbox_deleted;

-- inbox_truncated() removes the state of all rows. It uses DELETE, because TRUNCATE would fail if the statement also truncates
-- inbox_states. It does nothing for another table, like inbox_deleted().
CREATE FUNCTION rowcast.inbox_truncated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_RELID = 'rowcast.notifications'::regclass THEN
        DELETE FROM rowcast.inbox_states;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER inbox_truncated AFTER TRUNCATE ON rowcast.notifications
    FOR EACH STATEMENT EXECUTE FUNCTION rowcast.inbox_truncated();
ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER inbox_truncated;

-- Only the owner, and roles to which rowcast migrate grants the right, may call the functions.
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'rowcast'::regnamespace AND (proname ~ '^inbox' OR proname = 'cursor_snapshot') LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;
