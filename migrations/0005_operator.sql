-- Who started each process, for `status`. NULL for processes of older versions.
ALTER TABLE rekey.processes ADD COLUMN operator text;
