//! The manual: how help is laid out, the examples at its end, manual pages, completion scripts. Made from the definitions in
//! `cli`, which hands them in.

pub mod completions;
pub mod examples;
pub mod help;
pub mod man;
