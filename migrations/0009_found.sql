-- What a row held when it was put into quarantine, in the form of `content`: what was listed is what may be accepted. NULL in
-- entries of older versions.
ALTER TABLE rekey.quarantine ADD found_content text;
