-- A chunk whose batches were written beside a trigger of the application's, which may have written in them too: the closing
-- proof opens what they wrote, even if the trigger is gone by then. False in chunks of older versions, which looked at the
-- end only.
ALTER TABLE rekey.chunks ADD COLUMN beside_triggers boolean NOT NULL DEFAULT false;
