//! Reads, decrypts, re-encrypts and re-opens every row, and writes nothing at all: it works on a hot standby.
