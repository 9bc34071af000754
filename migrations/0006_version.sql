-- Which rekey this ledger needs. From here on older ones see it themselves and refuse; 0.1.0 does not look, so the server
-- refuses it the chunks to work on: two versions never work on one rotation.
COMMENT ON TABLE rekey.rotations IS 'needs rekey 0.2.0 or later';

CREATE FUNCTION rekey.refuse_older() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF coalesce(current_setting('rekey.ledger', true), '') = '' THEN
        RAISE EXCEPTION 'this rekey is too old: the ledger %', obj_description('rekey.rotations'::regclass, 'pg_class')
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse_older BEFORE INSERT OR UPDATE OF owner ON rekey.chunks
    FOR EACH ROW WHEN (NEW.owner IS NOT NULL) EXECUTE FUNCTION rekey.refuse_older();
