//! What parses, prints back and is refused.

use super::*;
use crate::crypto::likeness::looks_random;
use proptest::{option, prelude::*};

fn aws(id: &str, field: Option<&str>, at: Option<&str>) -> KeySource {
    KeySource::Aws(AwsSource {
        secret_id: id.into(),
        field: field.map(Into::into),
        stage_or_version: at.map(Into::into),
    })
}

/// CloudFormation's names may look like one; a ledger that holds such a name is read all the same.
#[test]
fn what_was_recorded_is_a_source_whatever_it_looks_like() {
    for text in ["aws:TokenSecretA720EF05-k8XzYt1Q2wEr", "file:0123456789abcdef0123456789ABCDEF"] {
        assert!(KeySource::parse(text).is_err(), "{text}");
        assert_eq!(KeySource::recorded(text).map(|source| source.to_string()).ok().as_deref(), Some(text));
    }
}

#[test]
fn every_form_parses_and_prints_back() {
    let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:dashtam/production-AbCdEf";
    let id = "0193b3b0-7d3e-7c1a-9a52-0d1e2f3a4b5c";
    let cases = [
        ("env:ENCRYPTION_KEY", KeySource::Env(EnvVariable::new("ENCRYPTION_KEY"))),
        ("file:/run/secrets/key", KeySource::File(KeyFile { path: "/run/secrets/key".into() })),
        ("file:key", KeySource::File(KeyFile { path: "key".into() })),
        (
            "dotenv:env/.env.prod#ENCRYPTION_KEY",
            KeySource::dotenv_variable(Path::new("env/.env.prod"), "ENCRYPTION_KEY"),
        ),
        ("dotenv:a#b/.env#K", KeySource::dotenv_variable(Path::new("a#b/.env"), "K")),
        ("aws:dashtam/production/encryption_key", aws("dashtam/production/encryption_key", None, None)),
        ("aws:dashtam/production#encryption_key", aws("dashtam/production", Some("encryption_key"), None)),
        ("aws:s#f@AWSPENDING", aws("s", Some("f"), Some("AWSPENDING"))),
        ("aws:team%40bank/key@AWSPREVIOUS", aws("team@bank/key", None, Some("AWSPREVIOUS"))),
        ("aws:s#odd%40%23%25", aws("s", Some("odd@#%"), None)),
        (&format!("aws:{arn}#encryption_key@{id}"), aws(arn, Some("encryption_key"), Some(id))),
        (&format!("aws:{arn}"), aws(arn, None, None)),
    ];
    for text in [
        "command:vault kv get -field=value 'kv/a b'",
        "command:az keyvault secret show --version 0193b3b07d3e7c1a9a520d1e2f3a4b5c",
    ] {
        let got = KeySource::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(got.to_string(), text);
        // What the ledger says is the same text, and not the same source: it is never run.
        let recorded = KeySource::recorded(text).unwrap();
        assert_ne!(recorded, got);
        assert_eq!(recorded.clone().given_again([&got]), got);
        assert_eq!(recorded.clone().given_again([]), recorded);
    }
    for (text, want) in cases {
        let got = KeySource::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(got, want);
        assert_eq!(got.to_string(), text);
    }
}

#[test]
fn what_may_be_a_key_is_refused_and_never_repeated() {
    let key = "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFi";
    for text in [
        key.to_owned(),
        "test-key-for-encryption-32-ch!@#".to_owned(),
        format!("key:{key}"),
        format!("ENV:{key}"),
        format!("env:{key}"),
        format!("env:{key}!"),
        format!("file:{key}"),
        format!("dotenv:{key}"),
        format!("dotenv:.env#{key}"),
        format!("aws:{key}$"),
        format!("aws:{key}"),
        format!("aws:{key}@AWSPENDING"),
        format!("aws:dashtam#{key}"),
        format!("command:get --token {key}"),
        format!("command:get --token={key}"),
        format!("command:{key}"),
        "command:".to_owned(),
        "command:get 'x".to_owned(),
        String::new(),
        "env:".to_owned(),
        "file:".to_owned(),
        "aws:".to_owned(),
        "aws:s#".to_owned(),
        "aws:s@".to_owned(),
        "aws:a@b@c".to_owned(),
        "aws:s@AWSPENDING#encryption_key".to_owned(),
    ] {
        let error = crate::error::Error::from(KeySource::parse(&text).expect_err(&text));
        assert_eq!(error.exit, crate::error::Exit::Usage, "{text}");
        let shown = format!("{error:?}");
        assert!(!shown.contains(key) && !shown.contains("test-key"), "{shown}");
    }
}

/// As `openssl rand` and Python's `secrets` print them.
#[test]
fn generated_keys_of_every_form_are_refused() {
    for key in [
        "b115f95a86f052185186bbb6f21adba4", // 16 bytes, hex
        "27100c598ffceec8021b1a4c92678d5b09610273675f8c13841bd7aafea2dca0",
        "t3SV5Wzf52TyWGARkKqeGUayD1UdtovF", // 24 bytes
        "POzEThlVbcaYpzpQqVCtOfVqxEWEohLN", // no digit
        "4f0CHxvzqd6Zs8-umR7n_w4x4RDo1rWG", // URL-safe
        "JAlZovVz5IzRW/mOl1n/1LH3LdPgDTdN",
        "4v5o+sQ+IhdJdMyYYmxbp/tMY/HHi1BKfKeS0Mba8HI=", // 32 bytes
        "bbi1S5vwOiR7WuOURvMu0gLwWtsh4S9MaqiUvzZ4sRs",
        "FrcKlkYwIkSEZwwVVmDxqlDI7ZowJqsY8mpnMrwW3SslTEZIV2byqr7CkrNo2TtN", // 48 bytes
        "iC9+59zMb6HD0K2OlPjXTMUwbZgCvhIgpXaiYrITqml2+O/XQgBaguA/0zIxLs+E",
    ] {
        for text in [
            format!("aws:{key}"),
            format!("aws:{key}#encryption_key@AWSCURRENT"),
            format!("file:{key}"),
            format!("dotenv:{key}"),
            format!("dotenv:{key}#ENCRYPTION_KEY"),
        ] {
            let error = crate::error::Error::from(KeySource::parse(&text).expect_err(&text));
            assert_eq!(error.exit, crate::error::Exit::Usage, "{text}");
            assert!(!format!("{error:?}").contains(key), "{error:?}");
        }
    }
}

#[test]
fn names_that_are_as_long_as_a_key_are_names() {
    for text in [
        "aws:dashtam-production-encryption-ke",             // 32 characters
        "aws:dashtam-2024-q3-encryption-key-1",             // 32
        "aws:dashtam_production_encryption_k2",             // 32
        "aws:DashtamProductionEncryptionKeyEu",             // 32
        "aws:Prod/App1/EncKey2/encryption_key",             // 32
        "aws:dashtam/production/security/encryption-key-2", // 44
        "aws:MySecretA720EF05-k8XzYt1Q2wEr",                // as CloudFormation names them
        "aws:arn:aws:secretsmanager:eu-west-1:123456789012:secret:4f0CHxvzqd6Zs8-umR7n_w4x4RDo1rWG-AbCdEf",
        "aws:dashtam@0123456789abcdef0123456789abcdef", // a version id
        "file:/run/secrets/dashtam/encryption1",        // 32
        "file:/run/secrets/encryption_key",
        "file:./b115f95a86f052185186bbb6f21adba4",
        "dotenv:/srv/Dashtam2/App/Production/env#ENCRYPTION_KEY", // 32
    ] {
        KeySource::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}

#[test]
fn a_dotenv_file_needs_its_variable() {
    let error = crate::error::Error::from(KeySource::parse("dotenv:env/.env.dev").unwrap_err());
    assert_eq!(error.exit, crate::error::Exit::Usage);
    assert!(error.hint.unwrap().contains("dotenv:env/.env.dev#ENCRYPTION_KEY"));
}

fn source() -> impl Strategy<Value = KeySource> {
    let variable = "[A-Za-z_][A-Za-z0-9_]{0,20}";
    let path = "[ -~é]{1,11}";
    let label = "[!\"$-?A-~]{1,40}"; // no # and no @
    prop_oneof![
        variable.prop_map(|name| KeySource::Env(EnvVariable { name })),
        path.prop_map(|path| KeySource::File(KeyFile { path: path.into() })),
        (path, variable).prop_map(|(path, var)| KeySource::dotenv_variable(Path::new(&path), &var)),
        ("[A-Za-z0-9/_+=.@:!-]{1,60}", option::of("\\PC{1,20}"), option::of(label)).prop_map(
            |(secret_id, field, stage_or_version)| KeySource::Aws(AwsSource {
                secret_id,
                field,
                stage_or_version
            })
        ),
    ]
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_itself(source in source()) {
        let printed = source.to_string();
        if let KeySource::Aws(aws) = &source {
            prop_assume!(!looks_random(&aws.secret_id));
        }
        prop_assert_eq!(KeySource::parse(&printed).unwrap_or_else(|e| panic!("{printed}: {e}")), source);
    }
}
