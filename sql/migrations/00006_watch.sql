-- recipients() returns the recipients that a value of the recipient expression stands for: the distinct elements of an
-- array, or a single value. NULL is nobody. The planner inlines the three variants.
CREATE FUNCTION rowcast.recipients(text) RETURNS SETOF text LANGUAGE sql IMMUTABLE AS
    'SELECT $1 WHERE $1 IS NOT NULL';
CREATE FUNCTION rowcast.recipients(anynonarray) RETURNS SETOF text LANGUAGE sql STABLE AS
    'SELECT $1::pg_catalog.text WHERE $1 IS NOT NULL';
CREATE FUNCTION rowcast.recipients(anyarray) RETURNS SETOF text LANGUAGE sql STABLE AS
    'SELECT DISTINCT r::pg_catalog.text FROM pg_catalog.unnest($1) AS u(r) WHERE r IS NOT NULL';

-- watched() returns the watched tables, with the options of watch() and what is wrong. failing reports that statements on
-- the table fail, or that on_error skips them. target is NULL for a trigger function that has no trigger. dropped has the
-- columns that the table had when it was watched, and no longer has: they were dropped or renamed. An expression that
-- names one of them fails.
CREATE FUNCTION rowcast.watched()
    RETURNS TABLE (target regclass, watcher regprocedure, options jsonb, problems text[], failing boolean, dropped text[])
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid::regclass, p.oid::regprocedure, o, array_remove(ARRAY[
        CASE WHEN c.oid IS NULL THEN concat('the table ', o ->> 'table', ' or its triggers were dropped') END,
        (SELECT 'missing triggers: ' || string_agg(operation, ', ') FROM jsonb_array_elements_text(o -> 'on') AS operation
            WHERE NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgfoid = p.oid AND tgname = 'rowcast_watch_' || operation)
            HAVING c.oid IS NOT NULL),
        (SELECT 'disabled triggers: ' || string_agg(tgname, ', ' ORDER BY tgname) FROM pg_trigger
            WHERE tgrelid = c.oid AND tgfoid = p.oid AND tgenabled NOT IN ('O', 'A')),
        (SELECT 'virtual generated columns, which PostgreSQL does not compute for triggers: ' || string_agg(quote_ident(attname), ', ')
            FROM pg_attribute WHERE attrelid = c.oid AND attgenerated = 'v' AND NOT attisdropped),
        (SELECT 'columns with another type: ' || string_agg(format('%I was %s and is %s', attname, o -> 'columns' ->> attname, atttypid::regtype), ', ')
            FROM pg_attribute WHERE attrelid = c.oid AND NOT attisdropped AND atttypid::regtype::text <> o -> 'columns' ->> attname),
        CASE WHEN has_foreign THEN 'it has a partition or child that is a foreign table' END,
        CASE WHEN relowner <> proowner THEN
            format('the table belongs to %I, and its trigger function to %I', pg_get_userbyid(relowner), pg_get_userbyid(proowner)) END,
        CASE WHEN NOT (has_schema_privilege(proowner, home, 'USAGE') AND has_column_privilege(proowner, notifications, 'recipient', 'INSERT')) THEN
            format('the owner %I of the trigger function may not insert notifications', pg_get_userbyid(proowner)) END], NULL),
        coalesce(has_foreign OR NOT pg_has_role(relowner, proowner, 'USAGE'), false),
        ARRAY(SELECT d FROM jsonb_object_keys(o -> 'columns') AS d WHERE c.oid IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = d AND NOT attisdropped))
    FROM (SELECT relnamespace AS home, oid AS notifications FROM pg_class
            WHERE relnamespace = to_regnamespace('rowcast') AND relname = 'notifications') AS ours
        JOIN pg_proc AS p ON pronamespace = home AND proname ~ '^watch_[0-9a-f]{32}$' AND prorettype = 'trigger'::regtype
        CROSS JOIN LATERAL CAST(substring(split_part(prosrc, E'\n', 1) FROM '^-- rowcast\.watch (.*)$') AS jsonb) AS o
        LEFT JOIN pg_class AS c ON c.oid IN (SELECT tgrelid FROM pg_trigger WHERE tgfoid = p.oid)
        -- PostgreSQL has no transition tables for foreign tables, so a statement on a table with such a child fails.
        CROSS JOIN LATERAL (
            WITH RECURSIVE family AS (SELECT c.oid AS id UNION SELECT inhrelid FROM pg_inherits JOIN family ON inhparent = id)
            SELECT EXISTS (SELECT FROM family JOIN pg_class AS f ON f.oid = id WHERE f.relkind = 'f')) AS children (has_foreign)
    ORDER BY c.oid::regclass::text COLLATE "C", proname
$$;

-- watch_check() raises an error if the relation is not a table that can be watched, or if a role may not watch it.
CREATE FUNCTION rowcast.watch_check(target regclass, role name) RETURNS void LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    relation pg_class;
    grants_options constant boolean := current_setting('server_version_num')::int >= 160000;
BEGIN
    SELECT * INTO relation FROM pg_class WHERE oid = target;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'rowcast: the table to watch is NULL or does not exist' USING ERRCODE = 'undefined_table';
    ELSIF relation.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION 'rowcast: % is not a table', target USING ERRCODE = 'wrong_object_type',
            HINT = 'Watch the table under a view. A foreign table cannot be watched.';
    ELSIF relation.relnamespace IN ('rowcast'::regnamespace, 'pg_catalog'::regnamespace) OR relation.relpersistence = 't' THEN
        RAISE EXCEPTION 'rowcast: % cannot be watched', target USING ERRCODE = 'wrong_object_type',
            HINT = 'Watch a permanent table of an app.';
    ELSIF NOT (SELECT pg_has_role(role, nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'rowcast') THEN
        RAISE EXCEPTION 'rowcast: role % may not watch tables', role USING ERRCODE = 'insufficient_privilege',
            HINT = (SELECT format('Only %I, the owner of the schema rowcast, may watch tables.', pg_get_userbyid(nspowner))
                FROM pg_namespace WHERE nspname = 'rowcast');
    -- The role needs the rights of the owner of the table for its triggers, and gives the trigger function to the owner.
    -- From PostgreSQL 16 on, a membership can have one without the other.
    ELSIF NOT (pg_has_role(role, relation.relowner, 'USAGE') AND pg_has_role(role, relation.relowner, CASE WHEN grants_options THEN 'SET' ELSE 'MEMBER' END)) THEN
        RAISE EXCEPTION 'rowcast: role % may not watch %', role, target USING ERRCODE = 'insufficient_privilege',
            HINT = CASE
                -- The role that gets this role could become a superuser.
                WHEN EXISTS (SELECT FROM pg_roles WHERE rolsuper AND pg_has_role(relation.relowner, oid, 'MEMBER')) THEN
                    format('The owner of the table, %I, is a superuser or a member of one. Run this first as a superuser:'
                        ' ALTER TABLE %s OWNER TO %I', pg_get_userbyid(relation.relowner), target, role)
                ELSE format('Run this first: GRANT %I TO %I', pg_get_userbyid(relation.relowner), role)
                    || CASE WHEN grants_options THEN ' WITH INHERIT TRUE, SET TRUE' ELSE '' END
            END;
    END IF;
END
$$;

-- watch_query() returns a query that evaluates expressions for the rows of source, which are pairs of composite values: n
-- and o. The inner SELECT finds a column of n before one of o, so that a name without n or o is a column of n. With OFFSET 0,
-- no expression is evaluated for a row for which the condition is false.
CREATE FUNCTION rowcast.watch_query(tg_op text, source text, expressions text, condition text, result text) RETURNS text
    LANGUAGE sql IMMUTABLE AS $$
    SELECT pg_catalog.format('SELECT %s FROM (SELECT %L::pg_catalog.text AS tg_op, p.* FROM (%s) AS p) AS p'
        ' CROSS JOIN LATERAL (SELECT (p.rowcast_o).*) AS o'
        ' CROSS JOIN LATERAL (SELECT %s FROM (SELECT (p.rowcast_n).*) AS n WHERE %s OFFSET 0) AS s', result, tg_op, source, expressions, condition)
$$;

-- watch_type() returns which type an expression of watch() must have. It returns NULL if kind is such a type, or a domain
-- over one.
CREATE FUNCTION rowcast.watch_type(part text, kind regtype) RETURNS text LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base pg_type;
    arrays boolean := part = 'recipient';
BEGIN
    SELECT * INTO base FROM pg_type WHERE oid = kind;
    WHILE base.typtype = 'd' OR arrays AND base.typcategory = 'A' LOOP
        arrays := arrays AND base.typtype = 'd';
        SELECT * INTO base FROM pg_type WHERE oid = CASE base.typtype WHEN 'd' THEN base.typbasetype ELSE base.typelem END;
    END LOOP;
    RETURN CASE
        WHEN part = 'when' AND base.oid <> 'boolean'::regtype THEN 'boolean'
        WHEN part NOT IN ('recipient', 'event') OR base.typcategory = 'S' OR base.typtype = 'e'
            OR base.oid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype, 'uuid'::regtype) THEN NULL
        WHEN part = 'event' THEN 'text, an integer, a UUID or an enum'
        ELSE 'text, an integer, a UUID or an enum, or an array of these'
    END;
END
$$;

-- watch_refusal() says why rowcast.notifications refuses a value of an expression. The name of the violated constraint is
-- empty if the value is NULL.
CREATE FUNCTION rowcast.watch_refusal(part text, expression text, violated text, value text) RETURNS text LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('the %s%s of the %1$s expression %3$s ', part, ' "' || left(nullif(value, ''), 100) || '"', expression) || CASE
        WHEN violated = '' AND part = 'event' THEN format('is NULL; for example coalesce(%s::text, ''message'')', expression)
        WHEN violated = '' AND part = 'data' THEN format('is NULL; for example coalesce(to_jsonb(%s), ''null'')', expression)
        WHEN violated = '' THEN 'is NULL'
        WHEN value = '' AND part = 'event' THEN format('is empty; for example coalesce(nullif(%s, ''''), ''message'')', expression)
        WHEN value = '' THEN format('is empty; nullif(%1$s, '''') sends nothing, or array_remove(%1$s, '''') for an array', expression)
        WHEN violated = 'event_is_not_reserved' THEN format('is reserved; for example ''order.'' || %s', expression)
        ELSE 'violates the constraint ' || violated
    END
$$;

-- unwatch() drops the triggers and the function that watch() created. It reports whether there were any. It ignores
-- functions that watch() has not created, because the owner of the table can give any name to a trigger of any function.
CREATE FUNCTION rowcast.unwatch(target regclass) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    trigger name;
    watcher regprocedure;
    watchers regprocedure[] := '{}';
BEGIN
    PERFORM rowcast.watch_check(target, current_user);
    FOR trigger, watcher IN SELECT tgname, p.oid FROM pg_trigger JOIN pg_proc AS p ON p.oid = tgfoid
        WHERE tgrelid = target AND pronamespace = 'rowcast'::regnamespace AND proname ~ '^watch_[0-9a-f]{32}$' LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', trigger, target);
        watchers := watchers || watcher;
    END LOOP;
    FOR watcher IN SELECT DISTINCT unnest(watchers) LOOP
        EXECUTE format('DROP FUNCTION %s', watcher);
    END LOOP;
    RETURN watchers <> '{}';
END
$$;

-- watch_function() creates a function that runs with the rights of the owner of a table. The owner gets the rights of a
-- sender, without which the function could not insert notifications. The function has its own settings, such as DateStyle.
-- Otherwise a role that writes to the table could change the meaning of the expressions by the settings of its session.
CREATE FUNCTION rowcast.watch_function(watcher name, result text, body text, owner name) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    lends boolean := NOT has_schema_privilege(owner, 'rowcast', 'CREATE');
BEGIN
    EXECUTE format('CREATE FUNCTION rowcast.%I() RETURNS %s LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp'
        ' SET standard_conforming_strings = on SET transform_null_equals = off SET "DateStyle" FROM CURRENT SET "IntervalStyle" FROM CURRENT'
        ' SET bytea_output FROM CURRENT SET extra_float_digits FROM CURRENT AS %L', watcher, result, body);
    EXECUTE format('REVOKE ALL ON FUNCTION rowcast.%I() FROM PUBLIC', watcher);
    IF NOT (SELECT pg_has_role(owner, nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'rowcast') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA rowcast TO %I', owner);
        EXECUTE format('GRANT INSERT (recipient, event, data) ON rowcast.notifications TO %I', owner);
        EXECUTE format('GRANT EXECUTE ON FUNCTION rowcast.watch_query(text, text, text, text, text), rowcast.watch_type(text, regtype),'
            ' rowcast.watch_refusal(text, text, text, text), rowcast.recipients(text), rowcast.recipients(anynonarray),'
            ' rowcast.recipients(anyarray) TO %I', owner);
    END IF;
    -- A role that becomes the owner of a function must have the right CREATE on the schema at this moment.
    IF lends THEN
        EXECUTE format('GRANT CREATE ON SCHEMA rowcast TO %I', owner);
    END IF;
    EXECUTE format('ALTER FUNCTION rowcast.%I() OWNER TO %I', watcher, owner);
    IF lends THEN
        EXECUTE format('REVOKE CREATE ON SCHEMA rowcast FROM %I', owner);
    END IF;
END
$$;

-- watch() makes statements on a table of an app insert notifications too. "on" says which statements: insert, update,
-- delete. recipient, event, data and "when" are SQL expressions over the row n: the new row, or for DELETE the deleted
-- one. o is the row before an UPDATE or DELETE; for INSERT, its columns are NULL. tg_op is INSERT, UPDATE or DELETE. data
-- of any type becomes JSON, as by to_jsonb(). Names outside pg_catalog need their schema.
--
-- If an expression fails, the statement fails too (on_error 'fail'), or it sends nothing and gets a warning ('skip').
-- Watching a table again replaces the options. The body of the trigger function begins with a comment that has the options
-- as JSON, which pg_dump keeps.
--
-- The expressions run with the rights of the owner of the table. If they ran with the rights of the owner of the schema,
-- the owner of the table could use these rights in a function that an expression calls, directly, in a cast, or in the
-- CHECK of a domain.
CREATE FUNCTION rowcast.watch(target regclass, recipient text, event text DEFAULT '''message''',
    data text DEFAULT 'to_jsonb(n.*)', "on" text[] DEFAULT '{insert}', "when" text DEFAULT 'true', on_error text DEFAULT 'fail')
    RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $watch$
DECLARE
    options jsonb := jsonb_build_object('when', "when", 'recipient', recipient, 'event', event, 'data', data, 'on', "on", 'on_error', on_error,
        'table', target::text, 'columns', (SELECT coalesce(jsonb_object_agg(attname, atttypid::regtype), '{}')
            FROM pg_attribute WHERE attrelid = target AND attnum > 0 AND NOT attisdropped));
    -- A line break before the closing parenthesis ends a comment in an expression.
    parts jsonb := jsonb_build_object('when', format(E'(%s\n)', "when"), 'recipient', format(E'(%s\n)', recipient),
        'event', format(E'(%s\n)', event), 'data', format(E'(%s\n)', data));
    -- The rows of a statement, in their order. PostgreSQL appends an updated row to both transition tables at once, so both
    -- have the same order. The subqueries leave out dropped columns, with which PostgreSQL would find a wrong column in a
    -- composite value. A FULL JOIN is never a nested loop, which a plan that was made for a few rows would use. OFFSET keeps
    -- the planner from making it another join.
    sources constant jsonb := jsonb_build_object(
        'insert', 'SELECT rowcast_a AS rowcast_n, rowcast_b AS rowcast_o FROM (SELECT t.* FROM rowcast_new AS t) AS rowcast_a'
            ' LEFT JOIN (SELECT t.* FROM rowcast_new AS t) AS rowcast_b ON false',
        'update', 'SELECT rowcast_n, rowcast_o FROM'
            ' (SELECT row_number() OVER () AS i, rowcast_a AS rowcast_n FROM (SELECT t.* FROM rowcast_new AS t) AS rowcast_a) AS a FULL JOIN'
            ' (SELECT row_number() OVER () AS i, rowcast_b AS rowcast_o FROM (SELECT t.* FROM rowcast_old AS t) AS rowcast_b) AS b'
            ' USING (i) ORDER BY i OFFSET 0',
        'delete', 'SELECT rowcast_a AS rowcast_n, rowcast_a AS rowcast_o FROM (SELECT t.* FROM rowcast_old AS t) AS rowcast_a');
    none constant text := format('SELECT rowcast_a AS rowcast_n, rowcast_a AS rowcast_o FROM (SELECT t.* FROM %s AS t) AS rowcast_a WHERE false', target);
    expressions constant text := format('%s AS r, %s AS e, %s AS d', parts ->> 'recipient', parts ->> 'event', parts ->> 'data');
    notifications constant text := 't.r, s.e::pg_catalog.text, to_jsonb(s.d)';
    each_recipient constant text := ' CROSS JOIN LATERAL rowcast.recipients(s.r) AS t(r)';
    checks jsonb;
    watcher constant name := 'watch_' || replace(gen_random_uuid()::text, '-', '');
    call constant text := format('SELECT rowcast.%I()', watcher);
    owner constant name := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = target);
    part text;
    operation text;
    body text;
    created record;
    level constant text := CASE on_error WHEN 'skip' THEN 'WARNING' ELSE 'EXCEPTION' END;
BEGIN
    PERFORM rowcast.watch_check(target, current_user);
    -- The trigger function calls functions of the owner of the schema with the rights of the owner of the table.
    PERFORM rowcast.watch_check(target, (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'rowcast'));
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = target AND attgenerated = 'v' AND NOT attisdropped) THEN
        RAISE EXCEPTION 'rowcast: % has a virtual generated column, and PostgreSQL does not compute it for triggers', target
            USING ERRCODE = 'feature_not_supported', HINT = 'Declare the column as STORED.';
    ELSIF EXISTS (WITH RECURSIVE family AS (SELECT target AS id UNION SELECT inhrelid FROM pg_inherits JOIN family ON inhparent = id)
            SELECT FROM family JOIN pg_class AS f ON f.oid = id WHERE f.relkind = 'f') THEN
        RAISE EXCEPTION 'rowcast: % cannot be watched: it has a partition or child that is a foreign table', target
            USING ERRCODE = 'feature_not_supported', HINT = 'Watch the other partitions or children.';
    ELSIF on_error IS NULL OR on_error NOT IN ('fail', 'skip') THEN
        RAISE EXCEPTION 'rowcast: on_error is %, want fail or skip', quote_nullable(on_error) USING ERRCODE = 'invalid_parameter_value';
    ELSIF coalesce(cardinality("on"), 0) = 0 OR NOT "on" <@ ARRAY['insert', 'update', 'delete'] OR
        cardinality("on") <> (SELECT count(DISTINCT o) FROM unnest("on") AS u(o)) THEN
        RAISE EXCEPTION 'rowcast: "on" is %, want an array of one or more of insert, update and delete', quote_nullable("on"::text)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOREACH part IN ARRAY ARRAY['when', 'recipient', 'event', 'data'] LOOP
        IF coalesce(btrim(options ->> part), '') = '' THEN
            RAISE EXCEPTION 'rowcast: the % expression is empty', part USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;

    -- Two sessions that grant rights on one object at the same time fail, so this takes the lock of migrations.
    PERFORM pg_advisory_xact_lock(4097083626);
    -- A scalar subquery has a type even without rows, and an error if it has several columns.
    SELECT jsonb_object_agg(p, format('SELECT pg_typeof((%s))', rowcast.watch_query('INSERT', none, (parts ->> p) || ' AS v', 'true', 's.*')))
        INTO checks FROM jsonb_object_keys(parts) AS p;
    checks := checks || jsonb_build_object(
        'one', rowcast.watch_query('INSERT', none, format(E'to_jsonb(%s\n)', data), 'true', '1'), -- fails for several values
        'all', format('SELECT NULL FROM (%s) AS a',
            rowcast.watch_query('INSERT', none, expressions, parts ->> 'when', notifications) || each_recipient));
    body := format($body$
DECLARE
    part text;
    kind regtype;
    wanted text;
    value text;
    hint text;
    violated text;
BEGIN
    FOREACH part IN ARRAY ARRAY['when', 'recipient', 'event', 'data', 'all'] LOOP
        BEGIN
            EXECUTE %3$L::jsonb ->> part INTO kind;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
            hint := concat_ws(' ', nullif(hint, ''), CASE
                WHEN SQLSTATE IN ('42601', '42703') AND hint = '' THEN
                    'Each expression is one SQL expression over the new row n and the old row o. A constant text needs single quotes.'
                WHEN SQLSTATE = '42P01' THEN 'The new row is n, the old one o. If a table is meant, write it with its schema, as in public.orders.'
                WHEN SQLSTATE IN ('42883', '42704') THEN 'Write names outside pg_catalog with their schema, as in public.f(id).'
                WHEN SQLSTATE = '42501' THEN format('The expressions run with the rights of %%I, the owner of the table.', current_user)
                WHEN hint = '' THEN 'Try the expression in a SELECT from the table.' END);
            RAISE EXCEPTION USING ERRCODE = SQLSTATE, HINT = hint, MESSAGE = format('rowcast: watching %%s: %%s failed: %%s', %1$L,
                coalesce(part || ' expression ' || (%2$L::jsonb ->> part), 'the combination of the expressions'), SQLERRM);
        END;
        wanted := rowcast.watch_type(part, kind);
        IF part = 'data' AND kind = 'record'::regtype THEN -- n, or several values
            BEGIN
                EXECUTE %3$L::jsonb ->> 'one';
            EXCEPTION WHEN undefined_function THEN wanted := 'one value';
                WHEN syntax_error THEN NULL; -- a SELECT needs the parentheses that it has in the other queries
            END;
        END IF;
        IF wanted IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'datatype_mismatch', HINT = CASE
                    WHEN kind = 'record'::regtype THEN 'Write one expression. For several values in the data, use jsonb_build_object.'
                    WHEN part = 'when' THEN 'Write a comparison, for example.'
                    WHEN kind IN ('json'::regtype, 'jsonb'::regtype) THEN 'The operator ->> returns text, and -> returns JSON.'
                    ELSE 'Write a column, or an expression with a cast to text.' END,
                MESSAGE = format('rowcast: watching %%s: the %%s expression has the type %%s, it must be %%s', %1$L, part, kind, wanted);
        END IF;
    END LOOP;
    -- watch() rolls this back.
    FOREACH part IN ARRAY ARRAY['recipient', 'event', 'data'] LOOP
        CONTINUE WHEN %2$L::jsonb ->> part !~* '^[[:space:]]*(NULL|''([^'']|'''')*'')[[:space:]]*$';
        EXECUTE 'SELECT ' || (%2$L::jsonb ->> part) INTO value;
        BEGIN
            INSERT INTO rowcast.notifications (recipient, event, data) VALUES (CASE part WHEN 'recipient' THEN value ELSE '*' END,
                CASE part WHEN 'event' THEN value ELSE 'message' END, CASE part WHEN 'data' THEN to_jsonb(value) ELSE 'true' END);
        EXCEPTION WHEN check_violation OR not_null_violation THEN
            GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
            RAISE EXCEPTION USING ERRCODE = SQLSTATE,
                MESSAGE = format('rowcast: watching %%s: %%s', %1$L, rowcast.watch_refusal(part, %2$L::jsonb ->> part, violated, value));
        END;
    END LOOP;
END
$body$, target, options, checks);
    -- The expressions can run code of the owner of the table, which can change settings of the session, such as the
    -- search_path. The rollback of this block undoes that. Nothing between the call and the rollback depends on settings.
    BEGIN
        PERFORM rowcast.watch_function(watcher, 'void', body, owner);
        EXECUTE call;
        RAISE EXCEPTION USING ERRCODE = 'RCOK0';
    EXCEPTION WHEN SQLSTATE 'RCOK0' THEN NULL;
    END;

    body := '-- rowcast.watch ' || options::text || $body$
#variable_conflict use_column
DECLARE
    rowcast_part text;
    rowcast_place text := 'INSERT INTO rowcast.notifications';
    rowcast_text text;
    rowcast_code text;
    rowcast_schema text;
    rowcast_table text;
    rowcast_column text;
    rowcast_violated text;
    rowcast_value text;
BEGIN
    -- If the table now belongs to another role, code of that role, such as a cast, must not run with the rights of the owner of
    -- this function.
    IF NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = TG_RELID), current_user, 'USAGE') THEN
        RAISE $body$ || level || $body$ USING ERRCODE = 'insufficient_privilege', HINT = 'Watch the table again.',
            MESSAGE = format('rowcast: watching %s: the table belongs to %I, and its trigger function to %I', TG_RELID::regclass,
                (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = TG_RELID), current_user);
        RETURN NULL;
    END IF;
    BEGIN
$body$;
    FOREACH operation IN ARRAY "on" LOOP
        body := body || format($body$
    IF TG_OP = %L THEN%s
        INSERT INTO rowcast.notifications (recipient, event, data) %s;
    END IF;
$body$, upper(operation), CASE operation WHEN 'update' THEN $body$
        IF (SELECT count(*) FROM rowcast_new) <> (SELECT count(*) FROM rowcast_old) THEN
            RAISE EXCEPTION 'a BEFORE trigger of a partition skipped a row that moved to the partition';
        END IF;$body$ END,
            rowcast.watch_query(upper(operation), sources ->> operation, expressions, parts ->> 'when', notifications) || each_recipient);
    END LOOP;
    body := body || format($body$
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS rowcast_text = MESSAGE_TEXT, rowcast_code = RETURNED_SQLSTATE, rowcast_violated = CONSTRAINT_NAME,
        rowcast_schema = SCHEMA_NAME, rowcast_table = TABLE_NAME, rowcast_column = COLUMN_NAME;
    IF rowcast_schema = 'rowcast' AND rowcast_table = 'notifications' AND rowcast_code IN ('23502', '23514') THEN
        rowcast_part := coalesce(nullif(rowcast_column, ''), split_part(rowcast_violated, '_', 1));
    END IF;
    IF rowcast_part IN ('recipient', 'event', 'data') THEN
        BEGIN
            IF rowcast_part <> 'data' AND rowcast_violated <> '' THEN
                EXECUTE format('SELECT %%1$I FROM (%%2$s) AS s(%%1$I) WHERE NOT (%%3$s) LIMIT 1', rowcast_part,
                    rowcast.watch_query(TG_OP, %1$L::jsonb ->> lower(TG_OP), (%2$L::jsonb ->> rowcast_part) || ' AS v', %3$L,
                        CASE rowcast_part WHEN 'recipient' THEN 'rowcast.recipients(s.v)' ELSE 's.v::pg_catalog.text' END),
                    (SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint
                        WHERE conrelid = 'rowcast.notifications'::regclass AND conname = rowcast_violated)) INTO rowcast_value;
            END IF;
        EXCEPTION WHEN OTHERS THEN NULL; -- the message is then without the value
        END;
        rowcast_text := rowcast.watch_refusal(rowcast_part, %4$L::jsonb ->> rowcast_part, rowcast_violated, rowcast_value);
    ELSE
        FOREACH rowcast_part IN ARRAY ARRAY['when', 'recipient', 'event', 'data'] LOOP
            BEGIN
                EXECUTE rowcast.watch_query(TG_OP, %1$L::jsonb ->> lower(TG_OP), (%2$L::jsonb ->> rowcast_part) || ' AS v', %3$L, 's.v');
            EXCEPTION WHEN OTHERS THEN
                rowcast_place := rowcast_part || ' expression ' || (%4$L::jsonb ->> rowcast_part);
                EXIT;
            END;
        END LOOP;
        rowcast_text := format('%%s failed: %%s', rowcast_place, rowcast_text);
    END IF;
    RAISE %5$s USING ERRCODE = rowcast_code, MESSAGE = format('rowcast: watching %%s: %%s', TG_RELID::regclass, rowcast_text);
    RETURN NULL;
    END;
END
$body$, sources, parts, parts ->> 'when', options, level);

    PERFORM rowcast.unwatch(target);
    PERFORM rowcast.watch_function(watcher, 'trigger', body, owner);
    FOREACH operation IN ARRAY "on" LOOP
        EXECUTE format('CREATE TRIGGER rowcast_watch_%s AFTER %s ON %s REFERENCING %s FOR EACH STATEMENT EXECUTE FUNCTION rowcast.%I()',
            operation, operation, target, CASE operation WHEN 'insert' THEN 'NEW TABLE AS rowcast_new' WHEN 'delete' THEN 'OLD TABLE AS rowcast_old'
                ELSE 'NEW TABLE AS rowcast_new OLD TABLE AS rowcast_old' END, watcher);
    END LOOP;
    SELECT * INTO created FROM rowcast.watched() AS w(relation, function) WHERE function = format('rowcast.%I()', watcher)::regprocedure;
    IF created.relation IS DISTINCT FROM target THEN -- CREATE TRIGGER found another table by the name
        RAISE EXCEPTION 'rowcast: while rowcast.watch() waited for a lock, the table was renamed to %, and another table got its name', target
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Try again.';
    ELSIF created.problems <> '{}' THEN
        RAISE EXCEPTION 'rowcast: % cannot be watched: %', target, array_to_string(created.problems, '; ') USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END
$watch$;
