//! Our cryptography against others': Wycheproof's vectors, and Python's `cryptography` in both directions.

use std::io::Write;
use std::process::{Command, Stdio};

use rekey::crypto::{Cipher, EncryptionKey, Iv, IvSource, OpenError, TagKey};
use serde::Deserialize;
use wycheproof::aead::{TestName, TestSet};
use zeroize::Zeroizing;

const MAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/crypto/make.py");
const ENVELOPES: &str = include_str!("../fixtures/crypto/envelopes.json");

fn key(bytes: &[u8]) -> EncryptionKey {
    EncryptionKey::from_bytes(bytes).unwrap_or_else(|error| panic!("{error}"))
}

fn open(cipher: &Cipher, envelope: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut plaintext = Zeroizing::new(b"left over".to_vec());
    let opened = cipher.open_into(envelope, &mut plaintext);
    assert!(opened.is_ok() || plaintext.is_empty(), "a failure left something behind");
    opened.map(|()| plaintext.to_vec())
}

#[test]
fn wycheproof() {
    let (mut valid, mut invalid) = (0, 0);
    let groups = TestSet::load(TestName::AesGcm).expect("Wycheproof's vectors").test_groups;
    let ours = groups.iter().filter(|g| (g.key_size, g.nonce_size, g.tag_size) == (256, 96, 128));
    for test in ours.flat_map(|group| &group.tests).filter(|test| test.aad.is_empty()) {
        let about = format!("vector {}: {}", test.tc_id, test.comment);
        let cipher = Cipher::new(&key(&test.key));
        let iv: Iv = test.nonce[..].try_into().expect(&about);
        let expected = [&test.nonce[..], &test.ct[..], &test.tag[..]].concat();
        let mut sealed = Vec::new();
        cipher.seal_into(&iv, &test.pt, &mut sealed);
        if test.result.must_fail() {
            invalid += 1;
            assert_eq!(open(&cipher, &expected), Err(OpenError::NotThisKey), "{about}");
            assert_ne!(sealed, expected, "{about}");
        } else {
            valid += 1;
            assert_eq!(open(&cipher, &expected).as_deref(), Ok(&test.pt[..]), "{about}");
            assert_eq!(sealed, expected, "{about}");
        }
    }
    // What the vectors of wycheproof 0.7 have; fewer means that the filter above lost some.
    assert_eq!((valid, invalid), (21, 27));
}

#[derive(Deserialize)]
struct Fixture {
    rotation: String,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    key: String,
    id: String,
    plaintext: String,
    envelope: String,
    fingerprint: String,
    tag: String,
}

fn fixture() -> Fixture {
    serde_json::from_str(ENVELOPES).expect("fixtures/crypto/envelopes.json")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digits).collect()
}

#[test]
fn what_python_sealed_opens_here() {
    let fixture = fixture();
    assert!(!fixture.rows.is_empty());
    let rotation = unhex(&fixture.rotation).try_into().expect("16 bytes");
    for Row { name, key: text, id, plaintext, envelope, fingerprint, tag } in fixture.rows {
        let key = key(text.as_bytes());
        let opened = open(&Cipher::new(&key), &unhex(&envelope));
        assert_eq!(opened.map(|bytes| hex(&bytes)), Ok(plaintext.clone()), "{name}");
        assert_eq!(key.fingerprint().to_string(), fingerprint, "{name}");
        let id = unhex(&id).try_into().expect("16 bytes");
        let tagged = TagKey::derive(&key, &rotation).tag(&id, &unhex(&plaintext));
        assert_eq!(hex(tagged.as_bytes()), tag, "{name}");
    }
}

#[test]
fn python_makes_the_fixtures_again_to_the_byte() {
    let Some(python) = python() else { return };
    let output = Command::new(python).arg(MAKE).output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        output.stdout == ENVELOPES.as_bytes(),
        "fixtures/crypto/envelopes.json is not what make.py makes"
    );
}

#[test]
fn what_is_sealed_here_opens_in_python() {
    let Some(python) = python() else { return };
    let (mut ivs, mut lines, mut expected) = (IvSource::new(), String::new(), String::new());
    for row in fixture().rows {
        let mut envelope = Vec::new();
        let iv = ivs.fill().expect("randomness");
        Cipher::new(&key(row.key.as_bytes())).seal_into(&iv, &unhex(&row.plaintext), &mut envelope);
        assert_ne!(hex(&envelope), row.envelope, "{}", row.name);
        lines += &format!("{} {}\n", hex(row.key.as_bytes()), hex(&envelope));
        expected += &format!("{}\n", row.plaintext);
    }
    let mut child = Command::new(python)
        .args([MAKE, "open"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("python ends");
    writer.join().expect("no panic").expect("python reads everything");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

/// A Python with `cryptography`: the one that scripts/test prepared, or any. Without it nothing is compared.
fn python() -> Option<&'static str> {
    const PREPARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/python3");
    let works = |python: &&str| {
        let probe = Command::new(python).args(["-c", "import cryptography"]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let found = ["python3", PREPARED].into_iter().find(works);
    if found.is_none() {
        eprintln!(
            "SKIPPED: no python3 with `cryptography` (tests/requirements.txt); scripts/test installs it"
        );
    }
    found
}
