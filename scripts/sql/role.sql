-- The role rekey works as, with exactly the privileges it needs and none besides. Run by a superuser (on RDS
-- rds_superuser), in the application's database, with psql; as often as you like.
--
--   psql "$ADMIN_URL" -v ON_ERROR_STOP=1 -f scripts/sql/role.sql
--
-- Give the role a way to log in yourself: \password rekey. On RDS, GRANT rds_iam TO rekey makes tokens of 15 minutes its
-- only password, and a window is longer: then start rekey with a command that makes a fresh token for every connection,
--   --database-password-command 'aws rds generate-db-auth-token --hostname HOST --port 5432 --username rekey'
-- tests/grants/main.rs works as this role, and takes each privilege away in turn.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rekey') THEN
        CREATE ROLE rekey LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 64;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO rekey', current_database());
END $$;

-- The credentials: one column may be changed, nothing inserted, nothing deleted.
GRANT USAGE ON SCHEMA public TO rekey;
GRANT SELECT, UPDATE (encrypted_credentials) ON public.provider_connections TO rekey;

-- How far replicas lag and which sessions hold old snapshots. Without it preflight says so instead of guessing.
GRANT pg_monitor TO rekey;

DO $$
BEGIN
    -- The application's own trail, where there is one: entries are added, never read.
    IF to_regclass('public.audit_logs') IS NOT NULL THEN
        GRANT INSERT ON public.audit_logs TO rekey;
    END IF;
    IF to_regclass('rekey.chain') IS NULL THEN
        -- The first run makes schema rekey. Run this script again as soon as it is there: the right is taken back.
        EXECUTE format('GRANT CREATE ON DATABASE %I TO rekey', current_database());
        RETURN;
    END IF;
    EXECUTE format('REVOKE CREATE ON DATABASE %I FROM rekey', current_database());
    GRANT USAGE ON SCHEMA rekey TO rekey;
    GRANT SELECT, INSERT, UPDATE ON rekey.rotations, rekey.passes, rekey.chunks TO rekey;
    -- Proofs of an ended rotation are removed when the next one begins.
    GRANT SELECT, INSERT, DELETE ON rekey.proofs TO rekey;
    -- A ledger that was not upgraded yet has none.
    IF to_regclass('rekey.samples') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE ON rekey.samples TO rekey;
    END IF;
    GRANT SELECT, INSERT, UPDATE, DELETE ON rekey.quarantine, rekey.processes TO rekey;
    -- Events are appended by a function that runs as their owner; no other role may write or alter them.
    GRANT SELECT ON rekey.events, rekey.chain, rekey._sqlx_migrations TO rekey;
    REVOKE EXECUTE ON FUNCTION rekey.append_event(uuid, text, text, text, jsonb) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION rekey.append_event(uuid, text, text, text, jsonb) TO rekey;
END $$;
