-- The audit trail holds against whoever may reach the database: only rekey's roles append to it, each event records the
-- login and the address it came from, and an acceptance is bound to the content it was given for.

ALTER TABLE rekey.events
    ADD login       text,   -- session_user; NULL in events that 0.1.0 wrote
    ADD address     text,   -- of the client; NULL over a local socket
    ADD application text;   -- application_name of the session

-- What was accepted: 'sha256:' and the digest of the credential, or 'xmin:' and the version of a row that cannot be read.
ALTER TABLE rekey.quarantine ADD content text;

-- Events of 0.1.0 have no login, and hash as they did.
CREATE OR REPLACE FUNCTION rekey.event_hash(previous bytea, e rekey.events) RETURNS bytea
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
    SELECT sha256(previous || convert_to((CASE WHEN e.login IS NULL
        THEN jsonb_build_array(
            e.seq, to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            e.rotation, e.action, e.operator, e.reason, e.detail)
        ELSE jsonb_build_array(
            e.seq, to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            e.rotation, e.action, e.operator, e.reason, e.detail, e.login, e.address, e.application)
        END)::text, 'UTF8'))
$$;

CREATE OR REPLACE FUNCTION rekey.append_event(rotation uuid, action text, operator text, reason text, detail jsonb)
RETURNS bytea LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    head   rekey.chain;
    e      rekey.events;
    holder text;
BEGIN
    IF action = 'accept' AND NOT coalesce(detail, '{}') ? 'content' THEN
        RAISE EXCEPTION 'an acceptance names the content that it is for' USING ERRCODE = 'check_violation';
    END IF;
    BEGIN
        SELECT * INTO STRICT head FROM rekey.chain FOR UPDATE;
    EXCEPTION WHEN lock_not_available THEN
        -- Sessions that wait for the head themselves hold the same lock on the table, and are not the reason.
        SELECT string_agg(format('pid %s (%s)', l.pid, concat_ws(', ', nullif(a.application_name, ''), a.usename,
                   host(a.client_addr), a.state, 'transaction open for '
                   || extract(epoch FROM date_trunc('second', clock_timestamp() - a.xact_start)) || ' s')), '; ')
            INTO holder
            FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
            WHERE l.relation = 'rekey.chain'::regclass AND l.mode = 'RowShareLock' AND l.granted
              AND l.pid <> pg_backend_pid()
              AND NOT EXISTS (SELECT FROM pg_locks w WHERE w.pid = l.pid AND NOT w.granted);
        RAISE EXCEPTION 'another session holds the head of the audit trail: %', coalesce(holder, 'it ended just now')
            USING ERRCODE = 'lock_not_available';
    END;
    e.seq := head.seq + 1;
    e.at := clock_timestamp();
    e.rotation := rotation;
    e.action := action;
    e.operator := operator;
    e.reason := reason;
    e.detail := detail;
    e.login := session_user;
    e.address := host(inet_client_addr());
    e.application := nullif(current_setting('application_name'), '');
    e.hash := rekey.event_hash(head.hash, e);
    INSERT INTO rekey.events VALUES (e.*);
    UPDATE rekey.chain SET seq = e.seq, hash = e.hash;
    RETURN e.hash;
END $$;

-- Whoever may write the ledger keeps the right to append; PUBLIC loses it.
REVOKE EXECUTE ON FUNCTION rekey.append_event(uuid, text, text, text, jsonb) FROM PUBLIC;
DO $$
DECLARE
    runner regrole;
BEGIN
    FOR runner IN
        SELECT DISTINCT acl.grantee::regrole FROM pg_class c, aclexplode(c.relacl) acl
        WHERE c.oid = 'rekey.rotations'::regclass AND acl.privilege_type = 'UPDATE' AND acl.grantee <> 0
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION rekey.append_event(uuid, text, text, text, jsonb) TO %s', runner);
    END LOOP;
END $$;

-- What a rotation claims is held against its events.
CREATE INDEX events_rotation ON rekey.events (rotation, action);
