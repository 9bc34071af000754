-- Pods that start together append one event each, one after the other, over links of any length: the chain's head is
-- waited for longer than a session's lock_timeout, which is short for the application's sake, lets it wait for a row.
ALTER FUNCTION rekey.append_event(uuid, text, text, text, jsonb) SET lock_timeout = '10s';
