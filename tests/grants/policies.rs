//! scripts/iam against what the binary really asks: every call a command makes is allowed by the policy that README.md
//! there names for it, and every action a policy allows is used by one of its commands.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::load::Load;
use crate::support::{Db, NEW, OLD, Rekey, block_on, rekey};
use crate::support_aws::Moto;
use crate::support_aws::relay::{Lose, Relay};

const READ: &str = include_str!("../../scripts/iam/read.json");
const RUN: &str = include_str!("../../scripts/iam/run.json");
const PROMOTE: &str = include_str!("../../scripts/iam/promote.json");
const FINALIZE: &str = include_str!("../../scripts/iam/finalize.json");
const KEYS: &str = include_str!("../../scripts/iam/keys.json");
const CURRENT: &str = "dashtam/production/encryption_key";
const TEMPORARY: &str = "dashtam/production/encryption_key_new";

/// One policy, and which of its actions were used.
struct Policy {
    statements: Vec<Value>,
    used: BTreeSet<(String, String)>,
}

impl Policy {
    fn parse(text: &str) -> Policy {
        let policy: Value = serde_json::from_str(text).expect("JSON");
        Policy { statements: policy["Statement"].as_array().expect("a list").clone(), used: BTreeSet::new() }
    }

    /// Denied by one, or allowed by none, is forbidden.
    fn allows(&mut self, action: &str, body: &Value) -> bool {
        let secret = body["SecretId"].as_str().or(body["Name"].as_str()).expect("a secret");
        let arn = match secret.starts_with("arn:") {
            // moto's account and region.
            true => secret
                .replace("us-east-1:123456789012", "eu-central-1:111122223333")
                .replace("eu-central-1:123456789012", "eu-central-1:111122223333"),
            false => format!("arn:aws:secretsmanager:eu-central-1:111122223333:secret:{secret}-AbCdEf"),
        };
        let action = format!("secretsmanager:{action}");
        let matching = |statement: &&Value, effect: &str| {
            statement["Effect"] == effect
                && any(&statement["Action"], |pattern| like(pattern, &action))
                && any(&statement["Resource"], |pattern| like(pattern, &arn))
                && holds(&statement["Condition"], body)
        };
        let allowed = self.statements.iter().find(|statement| matching(statement, "Allow"));
        let denied = self.statements.iter().any(|statement| matching(&statement, "Deny"));
        if let Some(statement) = allowed {
            let sid = statement["Sid"].as_str().expect("a name").to_owned();
            self.used.insert((sid, action));
        }
        allowed.is_some() && !denied
    }

    fn unused(&self) -> Vec<(String, String)> {
        let mut unused = Vec::new();
        for statement in self.statements.iter().filter(|statement| statement["Effect"] == "Allow") {
            let sid = statement["Sid"].as_str().expect("a name");
            for action in statement["Action"].as_array().expect("a list") {
                let pair = (sid.to_owned(), action.as_str().expect("text").to_owned());
                // KMS is asked by Secrets Manager, not by us.
                if !pair.1.starts_with("kms:") && !self.used.contains(&pair) {
                    unused.push(pair);
                }
            }
        }
        unused
    }
}

fn any(list: &Value, test: impl Fn(&str) -> bool) -> bool {
    list.as_array().expect("a list").iter().any(|each| test(each.as_str().expect("text")))
}

/// IAM's wildcards: `*` is anything, `?` one character.
fn like(pattern: &str, text: &str) -> bool {
    match (pattern.as_bytes().first(), text.as_bytes().first()) {
        (None, None) => true,
        (Some(b'*'), _) => like(&pattern[1..], text) || !text.is_empty() && like(pattern, &text[1..]),
        (Some(p), Some(t)) if *p == b'?' || p == t => like(&pattern[1..], &text[1..]),
        _ => false,
    }
}

/// The three conditions that the policies use, on the request's own fields.
fn holds(condition: &Value, body: &Value) -> bool {
    let Some(tests) = condition.as_object() else { return true };
    tests.iter().all(|(operator, keys)| {
        keys.as_object().expect("keys").iter().all(|(key, wanted)| match (operator.as_str(), key.as_str()) {
            ("StringLike", "secretsmanager:VersionStage") => {
                any(wanted, |pattern| like(pattern, body["VersionStage"].as_str().unwrap_or_default()))
            }
            ("NumericGreaterThanEquals", "secretsmanager:RecoveryWindowInDays") => {
                let least: i64 = wanted.as_str().expect("text").parse().expect("a number");
                body["RecoveryWindowInDays"].as_i64().is_some_and(|days| days >= least)
            }
            ("Bool", "secretsmanager:ForceDeleteWithoutRecovery") => {
                body["ForceDeleteWithoutRecovery"].as_bool().unwrap_or(false).to_string()
                    == *wanted.as_str().expect("text")
            }
            other => panic!("no rule for {other:?}"),
        })
    })
}

#[test]
fn what_each_command_asks_is_allowed_by_its_policy_and_no_more_is() {
    let db = Db::new();
    Load::rows(300).into(&db);
    let moto = Moto::start();
    let relay = block_on(async {
        moto.create(CURRENT, OLD).await;
        moto.create(TEMPORARY, NEW).await;
        Relay::start(&moto.url, Lose::Nothing).await
    });
    let aws = |arguments: &[&str]| -> Rekey {
        rekey(&db, [])
            .more(arguments)
            .without("ENCRYPTION_KEY")
            .without("NEW_ENCRYPTION_KEY")
            .env("SECRETS_BACKEND", "aws")
            .env("AWS_SECRET_NAME", "dashtam/production")
            .env("REKEY_SECRET_LAYOUT", "plain")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL", &relay.url)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("REKEY_BACKUP_PASSPHRASE", "a passphrase for a test")
    };
    let [mut read, mut run, mut promote, mut finalize] = [READ, RUN, PROMOTE, FINALIZE].map(Policy::parse);
    let ask = |policy: &mut Policy, arguments: &[&str]| {
        aws(arguments).exits(0);
        for (action, body) in relay.calls() {
            let named = format!("{action} on {} {}", body["SecretId"], body["VersionStage"]);
            assert!(policy.allows(&action, &body), "`rekey {}` asks for {named}", arguments.join(" "));
        }
    };
    ask(&mut read, &["plan"]);
    ask(&mut read, &["run", "--dry-run"]);
    ask(&mut run, &["run"]);
    for arguments in [&["status"][..], &["verify"], &["report"]] {
        ask(&mut read, arguments);
    }
    ask(&mut promote, &["promote", "--yes"]);
    ask(&mut promote, &["rollback", "--yes"]);
    ask(&mut run, &["run"]);
    ask(&mut promote, &["promote", "--yes"]);
    ask(&mut finalize, &["finalize", "--yes"]);
    // What comes before a rotation and after it: the temporary secret out of its recovery window, one that never was, a
    // backup put back, SECRET_KEY, and the retired key let go of.
    let mut keys = Policy::parse(KEYS);
    block_on(moto.create(
        "dashtam/production/secret_key",
        "a secret of sixty-four characters, as the guide has it: 0123456789ab",
    ));
    let (dir, new) = (tempfile::tempdir().expect("a folder"), format!("aws:{TEMPORARY}"));
    let file = dir.path().join("keys.gpg");
    let file = file.to_str().expect("UTF-8");
    ask(&mut keys, &["keys", "generate", "encryption", "--to", &new]);
    ask(&mut keys, &["keys", "generate", "encryption", "--to", &new, "--force"]);
    ask(&mut keys, &["keys", "backup", &new, "--out", file]);
    ask(&mut keys, &["keys", "restore", file, "--to", &new, "--yes"]);
    ask(&mut keys, &["keys", "rotate-secret-key", "--yes"]);
    let retired: String = db.value("SELECT old_fingerprint FROM rekey.rotations ORDER BY id DESC LIMIT 1");
    ask(&mut keys, &["keys", "destroy", "--fingerprint", &retired, "--yes"]);
    block_on(moto.sdk().delete_secret().secret_id(TEMPORARY).force_delete_without_recovery(true).send())
        .expect("gone");
    ask(&mut keys, &["keys", "generate", "encryption", "--to", &new]);
    assert_eq!(keys.unused(), [], "keys.json allows what nobody asks for");
    for (name, policy) in [("read", read), ("run", run), ("promote", promote), ("finalize", finalize)] {
        assert_eq!(policy.unused(), [], "{name}.json allows what nobody asks for");
    }
}

#[test]
fn policies_are_read_as_iam_reads_them() {
    let mut run = Policy::parse(RUN);
    let stage = |secret: &str, label: &str| serde_json::json!({ "SecretId": secret, "VersionStage": label });
    assert!(run.allows("GetSecretValue", &stage(CURRENT, "AWSCURRENT")));
    assert!(!run.allows("GetSecretValue", &stage("dashtam/production", "AWSCURRENT")));
    assert!(run.allows("UpdateSecretVersionStage", &stage(CURRENT, "rekey-old-1")));
    assert!(!run.allows("UpdateSecretVersionStage", &stage(CURRENT, "AWSCURRENT")));
    for kept in ["rekey-retired-00112233aabbccdd", "rekey-former-00112233aabbccdd", "rekey-promote-1"] {
        assert!(!run.allows("UpdateSecretVersionStage", &stage(CURRENT, kept)), "{kept}");
    }
    assert!(!run.allows("PutSecretValue", &stage(CURRENT, "")));
    assert!(!Policy::parse(READ).allows("UpdateSecretVersionStage", &stage(CURRENT, "rekey-old-1")));
    assert!(!Policy::parse(PROMOTE).allows("DeleteSecret", &stage(TEMPORARY, "")));
    let mut finalize = Policy::parse(FINALIZE);
    let delete = |days: i64, force: bool| serde_json::json!({ "SecretId": TEMPORARY, "RecoveryWindowInDays": days, "ForceDeleteWithoutRecovery": force });
    assert!(finalize.allows("DeleteSecret", &delete(30, false)));
    assert!(!finalize.allows("DeleteSecret", &delete(1, false)));
    assert!(!finalize.allows("DeleteSecret", &delete(30, true)));
}
