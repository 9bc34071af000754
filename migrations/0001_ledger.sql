-- rekey's own bookkeeping. Nothing of ours is in "public"; times are the database's clock_timestamp().

CREATE TABLE rekey.rotations (
    id               uuid PRIMARY KEY,                 -- UUIDv7
    table_name       text NOT NULL,
    state            text NOT NULL CHECK (state IN ('migrating', 'migrated', 'promoting', 'promoted', 'finalizing',
                                                    'finalized', 'rolling_back', 'unpromoting', 'rolled_back')),
    desired          text NOT NULL DEFAULT 'running' CHECK (desired IN ('running', 'paused', 'aborted')),
    old_fingerprint  text NOT NULL,
    new_fingerprint  text NOT NULL,
    old_source       text NOT NULL,
    new_source       text NOT NULL,
    old_arn          text,
    new_arn          text,
    old_version      text,
    new_version      text,
    target_source    text,                             -- where promote wrote, or will write, the new key
    promoted_version text,
    promoting_at     timestamptz,                      -- set once `promoting` was ever written
    external         boolean NOT NULL DEFAULT false,   -- promoted by someone's own hand
    compromised      boolean NOT NULL DEFAULT false,
    settings         jsonb NOT NULL DEFAULT '{}',
    deadline         timestamptz,
    operator         text NOT NULL,
    reason           text,
    verified_at      timestamptz,                      -- last verify, whatever its result
    verified_clean   boolean,
    verify_result    jsonb,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    state_since      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (old_fingerprint <> new_fingerprint)
);
CREATE UNIQUE INDEX rotations_one_active ON rekey.rotations (table_name)
    WHERE state NOT IN ('finalized', 'rolled_back');

-- One walk over the table ("full") or over known stragglers ("sweep"), ended by a closing proof.
CREATE TABLE rekey.passes (
    rotation       uuid NOT NULL REFERENCES rekey.rotations,
    pass           integer NOT NULL,
    direction      text NOT NULL CHECK (direction IN ('forward', 'backward')),
    kind           text NOT NULL CHECK (kind IN ('full', 'sweep')),
    addressing     text NOT NULL CHECK (addressing IN ('keys', 'blocks')),
    horizon        xid8 NOT NULL,        -- H: rows with an older xmin were seen before, or will be by this pass
    next_horizon   xid8,                 -- H for the pass after this one, taken before the closing proof
    filenode       oid NOT NULL,         -- the heap the block numbers belong to
    frontier_id    uuid,                 -- everything up to here is carved into chunks
    frontier_block bigint,
    end_block      bigint,
    carved         boolean NOT NULL DEFAULT false,
    carved_rows    bigint NOT NULL DEFAULT 0,   -- rows the chunks so far were meant to hold
    chunk_rows     bigint NOT NULL,
    estimated_rows bigint NOT NULL DEFAULT 0,
    sweeps         integer NOT NULL DEFAULT 0,   -- sweeps in a row before this pass
    not_before     timestamptz,
    outcome        text CHECK (outcome IN ('clean', 'superseded', 'unsettled', 'cancelled')),
    started_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at       timestamptz,
    PRIMARY KEY (rotation, pass)
);

-- A range one worker leases. Totals are sums over chunks, so that workers never meet on one row.
CREATE TABLE rekey.chunks (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rotation       uuid NOT NULL REFERENCES rekey.rotations,
    pass           integer NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('keys', 'blocks', 'ids', 'proof')),
    lo             uuid,                 -- exclusive; NULL is open
    hi             uuid,                 -- inclusive; NULL is open
    lo_block       bigint,               -- inclusive
    hi_block       bigint,               -- exclusive
    ids            uuid[],
    state          text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'cancelled')),
    owner          text,                 -- the process that holds the lease
    worker         integer,
    epoch          integer NOT NULL DEFAULT 0,
    lease_until    timestamptz,
    batch_seq      bigint NOT NULL DEFAULT 0,
    re_encrypted   bigint NOT NULL DEFAULT 0,
    already_on_key bigint NOT NULL DEFAULT 0,
    null_rows      bigint NOT NULL DEFAULT 0,
    lost_races     bigint NOT NULL DEFAULT 0,
    bytes          bigint NOT NULL DEFAULT 0,
    started_at     timestamptz,
    done_at        timestamptz,
    FOREIGN KEY (rotation, pass) REFERENCES rekey.passes
) WITH (fillfactor = 50);
CREATE INDEX chunks_open ON rekey.chunks (rotation, pass, id) WHERE state = 'open';
CREATE INDEX chunks_rotation ON rekey.chunks (rotation);

-- Per batch: its transaction, its rows and one 8-byte tag a row, taken under the key the row came from.
CREATE TABLE rekey.proofs (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rotation  uuid NOT NULL,
    direction text NOT NULL,
    chunk     bigint NOT NULL,
    seq       bigint NOT NULL,
    xid       xid8 NOT NULL,
    lo        uuid NOT NULL,             -- least and greatest of ids
    hi        uuid NOT NULL,
    ids       uuid[] NOT NULL,
    tags      bytea NOT NULL             -- 8 bytes a row, in the order of ids
);
ALTER TABLE rekey.proofs ALTER ids SET STORAGE EXTERNAL, ALTER tags SET STORAGE EXTERNAL;
CREATE INDEX proofs_xid ON rekey.proofs (rotation, xid);

CREATE TABLE rekey.quarantine (
    rotation      uuid NOT NULL REFERENCES rekey.rotations,
    row_id        uuid NOT NULL,
    reason        text NOT NULL,
    length        integer,
    found_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    accepted_at   timestamptz,
    accepted_by   text,
    accept_reason text,
    PRIMARY KEY (rotation, row_id)
);

-- Who is at work; for `status` only, nothing depends on it.
CREATE TABLE rekey.processes (
    process    text PRIMARY KEY,
    rotation   uuid NOT NULL,
    workers    integer NOT NULL,
    throttle   text,
    rate       double precision NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The audit trail: append-only, hash-chained. The head's row is locked while appending.
CREATE TABLE rekey.events (
    seq       bigint PRIMARY KEY,
    at        timestamptz NOT NULL,
    rotation  uuid,
    action    text NOT NULL,
    operator  text NOT NULL,
    reason    text,
    detail    jsonb NOT NULL,
    hash      bytea NOT NULL
);
CREATE TABLE rekey.chain (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    seq  bigint NOT NULL,
    hash bytea NOT NULL
);
INSERT INTO rekey.chain (seq, hash) VALUES (0, sha256('rekey event chain v1'::bytea));

CREATE FUNCTION rekey.event_hash(previous bytea, e rekey.events) RETURNS bytea
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
    SELECT sha256(previous || convert_to(jsonb_build_array(
        e.seq, to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        e.rotation, e.action, e.operator, e.reason, e.detail)::text, 'UTF8'))
$$;

CREATE FUNCTION rekey.append_event(rotation uuid, action text, operator text, reason text, detail jsonb)
RETURNS bytea LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    head rekey.chain;
    e    rekey.events;
BEGIN
    SELECT * INTO STRICT head FROM rekey.chain FOR UPDATE;
    e := ROW(head.seq + 1, clock_timestamp(), rotation, action, operator, reason, detail, NULL)::rekey.events;
    e.hash := rekey.event_hash(head.hash, e);
    INSERT INTO rekey.events VALUES (e.*);
    UPDATE rekey.chain SET seq = e.seq, hash = e.hash;
    RETURN e.hash;
END $$;

CREATE FUNCTION rekey.events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rekey.events is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON rekey.events
    FOR EACH ROW EXECUTE FUNCTION rekey.events_are_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON rekey.events
    FOR EACH STATEMENT EXECUTE FUNCTION rekey.events_are_append_only();
