-- What a process waits for, as data: `status` picks the one that waits, and nobody reads prose back.
ALTER TABLE rekey.processes
    ADD COLUMN reason text,                                -- the word that `throttle` begins with
    ADD COLUMN waits  boolean NOT NULL DEFAULT false;      -- it stands still, and is not merely slow

-- How long a lease was given for: one that ends much later than that, because the database's clock was set back since,
-- has expired. NULL in leases of older versions.
ALTER TABLE rekey.chunks ADD COLUMN lease_seconds double precision;
