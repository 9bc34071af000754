//! The application's table, by name, and who has a say in what is written to it.

/// The table whose credentials are moved.
pub const TABLE: &str = "public.provider_connections";

/// True where a trigger that is not part of a constraint may change what an UPDATE of credentials writes, or write more.
macro_rules! user_triggers {
    () => {
        "EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = \
         'public.provider_connections'::regclass AND NOT tgisinternal AND tgenabled IN ('O', 'A') AND tgtype & 16 <> 0 \
         AND (cardinality(tgattr::int2[]) = 0 OR EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = tgrelid \
         AND a.attname = 'encrypted_credentials' AND a.attnum = ANY (tgattr::int2[]))))"
    };
}
pub(in crate::store) use user_triggers;
