//! Generating into env files and pipes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::rekey_without_database;

const TEMPLATE: &str = "# Dashtam\r\nDEBUG=true\r\nexport SECRET_KEY=your-secret-key-will-be-generated-by-make-keys # keep\r\n\
                        ENCRYPTION_KEY='your-encryption-key-will-be-generated-by-make-keys'";

fn value(text: &str, name: &str) -> String {
    let line =
        text.lines().find(|l| l.trim_start_matches("export ").starts_with(&format!("{name}="))).unwrap();
    line.split_once('=').unwrap().1.split(' ').next().unwrap().trim_end().to_owned()
}

#[test]
fn placeholders_are_filled_and_keys_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env.dev");
    let file = path.to_str().unwrap();
    fs::write(&path, TEMPLATE).unwrap();
    let first = rekey_without_database(["keys", "generate", "--env-file", file]).exits(0);
    let text = fs::read_to_string(&path).unwrap();
    let (secret, encryption) = (value(&text, "SECRET_KEY"), value(&text, "ENCRYPTION_KEY"));
    assert_eq!((secret.len(), encryption.len()), (64, 32));
    assert!(
        text.starts_with("# Dashtam\r\nDEBUG=true\r\nexport SECRET_KEY=") && text.contains(" # keep\r\n")
    );
    first.says_none_of(&[&secret, &encryption]);
    assert!(first.stderr.contains("audit trail got no entry"), "{first}");

    let again = rekey_without_database(["keys", "generate", "--env-file", file]).exits(0);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert!(again.stdout.contains("already exists"), "{again}");
    assert!(
        rekey_without_database(["keys", "validate", "--env-file", file]).exits(0).stdout.contains("64 bytes")
    );

    // The guide's own roll-back: cp env/.env.dev.bak env/.env.dev
    rekey_without_database(["keys", "generate", "--env-file", file, "--force"]).exits(0);
    let backup = dir.path().join(".env.dev.bak");
    assert_eq!(fs::read_to_string(&backup).unwrap(), text);
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    let forced = fs::read_to_string(&path).unwrap();
    assert_ne!(value(&forced, "SECRET_KEY"), secret);
    assert_ne!(value(&forced, "ENCRYPTION_KEY"), encryption);

    // Twice forced, no key is lost.
    rekey_without_database(["keys", "generate", "encryption", "--env-file", file, "--force"]).exits(0);
    assert_eq!(fs::read_to_string(&backup).unwrap(), forced);
    assert_eq!(fs::read_to_string(dir.path().join(".env.dev.bak.1")).unwrap(), text);
    assert_eq!(value(&fs::read_to_string(&path).unwrap(), "SECRET_KEY"), value(&forced, "SECRET_KEY"));
}

#[test]
fn a_comment_is_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    let file = path.to_str().unwrap();
    fs::write(&path, "SECRET_KEY=   # made by make keys\nENCRYPTION_KEY=\t# this too\n").unwrap();
    rekey_without_database(["keys", "validate", "--env-file", file]).exits(3);
    rekey_without_database(["keys", "generate", "--env-file", file]).exits(0);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("   # made by make keys\n") && text.ends_with("\t# this too\n"), "{text}");
    rekey_without_database(["keys", "validate", "--env-file", file]).exits(0);
}

#[test]
fn a_file_that_is_not_there_is_made_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    rekey_without_database(["keys", "generate", "--env-file", path.to_str().unwrap()]).exits(0);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    let key = dir.path().join("encryption_key");
    let to = format!("file:{}", key.display());
    rekey_without_database(["keys", "generate", "--to", &to]).exits(0);
    let text = fs::read_to_string(&key).unwrap();
    assert_eq!((text.len(), text.ends_with('\n')), (33, true));
    rekey_without_database(["keys", "generate", "--to", &to]).exits(0);
    assert_eq!(fs::read_to_string(&key).unwrap(), text);
    rekey_without_database(["keys", "generate", "--to", &to, "--force"]).exits(0);
    assert_eq!(fs::read_to_string(dir.path().join("encryption_key.bak")).unwrap(), text);
}

#[test]
fn the_backup_is_the_file_as_it_was_before_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backup) = (dir.path().join(".env"), dir.path().join(".env.bak"));
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let generate = |more: &[&str]| {
        let generate = rekey_without_database(["keys", "generate", "--env-file", path.to_str().unwrap()]);
        generate.more(more).exits(0)
    };
    generate(&[]);
    generate(&["secret", "--force"]);
    let edited = format!("{}DEBUG=true\n", read(&path));
    fs::write(&path, &edited).unwrap();
    generate(&["encryption", "--force"]);
    assert_eq!(read(&backup), edited);
    // As one leaves it that was killed between its backup and its change.
    let before = read(&path);
    fs::copy(&path, &backup).unwrap();
    generate(&["--force"]);
    assert_eq!(read(&backup), before);
    assert!(dir.path().join(".env.bak.1").exists() && !dir.path().join(".env.bak.2").exists());

    let (key, backup) = (dir.path().join("encryption_key"), dir.path().join("encryption_key.bak"));
    let to = format!("file:{}", key.display());
    rekey_without_database(["keys", "generate", "--to", &to]).exits(0);
    let before = read(&key);
    fs::copy(&key, &backup).unwrap();
    rekey_without_database(["keys", "generate", "--to", &to, "--force"]).exits(0);
    assert_eq!((read(&backup) == before, read(&key) == before), (true, false));
    assert!(!dir.path().join("encryption_key.bak.1").exists());
}

#[test]
fn one_key_that_cannot_be_judged_keeps_both_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    let tries: [&[&str]; 2] = [&[], &["--force"]];
    for encryption in ["${OTHER}", "\"not closed"] {
        let text = format!(
            "SECRET_KEY=your-secret-key-will-be-generated-by-make-keys\nENCRYPTION_KEY={encryption}\n"
        );
        fs::write(&path, &text).unwrap();
        for force in tries {
            let generate = rekey_without_database(["keys", "generate", "--env-file", path.to_str().unwrap()]);
            generate.more(force).exits(3);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}

#[test]
fn a_flag_goes_before_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let (env, key) = (dir.path().join(".env"), dir.path().join("encryption_key"));
    let to = format!("file:{}", key.display());
    let generate = || rekey_without_database(["keys", "generate", "encryption"]).env("REKEY_ENV_FILE", &env);
    generate().args(["--to", &to]).exits(0);
    assert!(key.exists() && !env.exists());
    let first = fs::read_to_string(&key).unwrap();
    // What does not exclude the flag counts as always.
    generate().args(["--to", &to]).env("REKEY_FORCE", "true").exits(0);
    assert_ne!(fs::read_to_string(&key).unwrap(), first);
    let printed =
        generate().args(["--stdout"]).env("REKEY_TO", &to).env("REKEY_FORCE", "true").exits(0).stdout;
    assert_eq!(printed.trim_end().len(), 32);
    assert!(!env.exists());
    generate().env("REKEY_STDOUT", "false").exits(0);
    assert!(env.exists());
    for command in ["validate", "status"] {
        rekey_without_database(["keys", command, "env:K"])
            .env("K", "xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0")
            .env("REKEY_ENV_FILE", "/nowhere/.env")
            .exits(0);
    }
    rekey_without_database(["keys", "generate", "--stdout"]).env("REKEY_FORCE", "false").exits(0);
    // Two flags, two variables, and none.
    generate().args(["--to", &to, "--stdout"]).exits(2);
    generate().env("REKEY_TO", &to).exits(2);
    rekey_without_database(["keys", "generate"]).env("REKEY_STDOUT", "false").exits(2);
}

#[test]
fn standard_output_takes_keys_unless_it_is_a_terminal() {
    let one = rekey_without_database(["keys", "generate", "encryption", "--stdout"]).exits(0);
    assert_eq!(one.stdout.trim_end().len(), 32);
    let both = rekey_without_database(["keys", "generate", "--stdout"]).exits(0);
    let lengths: Vec<_> = both.stdout.lines().map(|l| l.split_once('=').unwrap().1.len()).collect();
    assert_eq!(lengths, [64, 32]);
    let json = rekey_without_database(["keys", "generate", "--stdout"]).json(0);
    assert_eq!(json["SECRET_KEY"].as_str().unwrap().len(), 64);
    assert!(!both.stderr.contains(both.stdout.lines().next().unwrap()));

    // A terminal of its own for the process, by util-linux.
    let command = format!("{} keys generate --stdout", env!("CARGO_BIN_EXE_rekey"));
    let shown = std::process::Command::new("script").args(["-qec", &command, "/dev/null"]).output().unwrap();
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(shown.status.code(), Some(2), "{text}");
    assert!(text.contains("terminal") && !text.contains("SECRET_KEY="), "{text}");
}

#[test]
fn a_place_that_cannot_be_meant_is_refused() {
    for arguments in [
        ["keys", "generate", "encryption", "--to", "env:ENCRYPTION_KEY"],
        ["keys", "generate", "--force", "--to", "file:/nowhere/key"],
        ["keys", "generate", "encryption", "--to", "kJ8sLq0ZpX2vB6nM4tR7yW1cD5fG9hA3"],
    ] {
        let refused = rekey_without_database(arguments).exits(2);
        refused.says_none_of(&["kJ8sLq0ZpX2vB6nM4tR7yW1cD5fG9hA3"]);
    }
    rekey_without_database(["keys", "generate"]).exits(2);
}
