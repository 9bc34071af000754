-- How fast a rotation was, and why it was not faster, for its report: a sample every few seconds at first, and fewer the
-- longer it takes, so that there are some hundred more each time its age doubles. Nothing depends on them.
CREATE TABLE rekey.samples (
    rotation     uuid NOT NULL REFERENCES rekey.rotations,
    at           timestamptz NOT NULL,               -- the beginning of its time, for all processes the same
    direction    text NOT NULL CHECK (direction IN ('forward', 'backward')),
    measured_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    rows         bigint NOT NULL,                    -- settled by then, by all processes
    reason       text,                               -- why work was slow or stood still
    waits        boolean NOT NULL DEFAULT false,     -- it stood still
    lock_seconds double precision NOT NULL DEFAULT 0, -- the longest that a batch held its row locks
    retries      bigint NOT NULL DEFAULT 0,          -- things that were tried again
    PRIMARY KEY (rotation, direction, at)
);

-- Whoever may write or read the ledger's processes may do so with their samples.
DO $$
DECLARE
    privilege record;
BEGIN
    FOR privilege IN
        SELECT DISTINCT acl.grantee::regrole AS role, acl.privilege_type AS name FROM pg_class c, aclexplode(c.relacl) acl
        WHERE c.oid = 'rekey.processes'::regclass AND acl.privilege_type IN ('SELECT', 'INSERT', 'UPDATE') AND acl.grantee <> 0
          AND acl.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON rekey.samples TO %s', privilege.name, privilege.role);
    END LOOP;
END $$;
