//! The application's table, by name.

/// The table whose credentials are moved.
pub const TABLE: &str = "public.provider_connections";
