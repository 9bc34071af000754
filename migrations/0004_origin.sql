-- Where a rotation was begun: a copy of the database carries its ledger along, and must not act on production's keys.
-- Empty for rotations that an older version of rekey recorded.
ALTER TABLE rekey.rotations
    ADD COLUMN system_identifier bigint,  -- pg_control_system(), where the role may ask for it
    ADD COLUMN database_oid      oid,
    ADD COLUMN database_name     name;
