//! rekey's pure modules, at the paths they have in rekey, so that one property serves the fuzzers and rekey's own tests.

#![expect(dead_code, reason = "the rest of rekey calls it")]

#[path = "../../../src/crypto/mod.rs"]
pub mod crypto;
#[path = "../../../src/entropy.rs"]
pub mod entropy;
#[path = "../../../src/error.rs"]
pub mod error;
#[path = "../../../src/program/mod.rs"]
pub mod program;
pub mod secrets;
#[cfg(feature = "dsn")]
pub mod store;
