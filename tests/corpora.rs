//! Every file of the fuzz corpora, through the very properties that the fuzz targets check (tests/README.md, "Fuzzing"):
//! what a fuzzer once found stays found.

#[path = "../fuzz/properties/dotenv.rs"]
mod dotenv;
#[path = "../fuzz/properties/dsn.rs"]
mod dsn;
#[path = "../fuzz/properties/envelope.rs"]
mod envelope;
#[path = "../fuzz/properties/json_field.rs"]
mod json_field;
#[path = "../fuzz/properties/key_source.rs"]
mod key_source;

use std::panic::catch_unwind;
use std::path::PathBuf;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = folder.read_dir().expect("a corpus").map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 12, "{} has only {} files", folder.display(), files.len());
    let fails = |path: &PathBuf| {
        let data = std::fs::read(path).expect("it reads");
        catch_unwind(|| check(&data)).is_err()
    };
    let failed: Vec<_> = files.into_iter().filter(fails).collect();
    assert!(failed.is_empty(), "the property fails for {failed:#?}");
}

#[test]
fn envelopes() {
    replay("envelope", envelope::check);
}

#[test]
fn key_sources() {
    replay("key_source", key_source::check);
}

#[test]
fn dotenv_files() {
    replay("dotenv", dotenv::check);
}

#[test]
fn database_urls() {
    replay("dsn", dsn::check);
}

#[test]
fn json_fields() {
    replay("json_field", json_field::check);
}
