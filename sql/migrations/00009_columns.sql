-- cursor() returns the cursor of the snapshot of its statement, as described in migration 7. Until now, it failed if an app had added
-- a column to rowcast.notifications with the name of one of its variables, such as seen. Then no hub started.
CREATE OR REPLACE FUNCTION rowcast.cursor() RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    seen     CONSTANT pg_snapshot := pg_current_snapshot();
    present  CONSTANT bigint := pg_snapshot_xmax(seen)::text::bigint;
    own      CONSTANT xid8 := pg_current_xact_id_if_assigned();
    last     record;
    mine     record;
    xmax     bigint := 3;
    horizon  bigint;
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
    -- Retention has deleted all rows below the horizon, so the cursor has seen them. A horizon above the snapshot is of another server.
    SELECT max(h.horizon::text::bigint) INTO horizon FROM rowcast.history h WHERE h.singleton;
    IF horizon BETWEEN xmax AND present THEN
        xmax := horizon;
    END IF;
    -- The newest visible row of another transaction. The last condition excludes rows whose number this server had not assigned when
    -- the row was written. xmin has the lowest 32 bits of the number of the transaction that wrote the row.
    SELECT n.xid, n.id, n.created_at INTO last FROM rowcast.notifications n
        WHERE n.xid >= '3' AND n.xid < pg_snapshot_xmax(seen) AND n.xid IS DISTINCT FROM own AND pg_visible_in_snapshot(n.xid, seen)
        AND n.id > 0
        AND (n.xmin = n.xid::xid OR n.xid::text::bigint <= present - (present - n.xmin::text::bigint & 4294967295))
        ORDER BY n.xid DESC, n.id DESC LIMIT 1;
    IF last.id IS NOT NULL THEN
        xmax := greatest(xmax, last.xid::text::bigint + 1);
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
    -- The snapshot shows neither the transactions that were running, nor any transaction from its xmax on. The number of this
    -- transaction can be higher than xmax. There may be other transactions in between.
    xip := ARRAY(SELECT x FROM (
            SELECT x::text::bigint AS x FROM pg_snapshot_xip(seen) x
            UNION SELECT generate_series(present, xmax - 1)
            UNION SELECT own::text::bigint) unseen
        WHERE x < xmax AND x IS DISTINCT FROM mine.xid);
    RETURN concat_ws('-', coalesce(mine.id, id), coalesce(mine.xid, 0), xmax, rowcast.encode_xip(xmax, xip),
        rowcast.epoch_tag(), anchor);
END $$;
