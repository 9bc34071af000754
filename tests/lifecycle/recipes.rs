//! The recipes of docs/key-sources.md, as they stand there: a whole life each, with stand-ins for the programs, which know
//! the recipe's own arguments and no others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, Rekey, rekey};

/// Programs in a folder of their own, and what they keep.
pub struct Stand {
    folder: TempDir,
}

impl Stand {
    /// With the old and the new key in its store.
    pub fn new() -> Stand {
        let stand = Stand { folder: TempDir::new().unwrap() };
        stand.keep("encryption_key", OLD);
        stand.keep("encryption_key_old", OLD);
        stand.keep("encryption_key_new", NEW);
        stand
    }

    /// The path of what is kept.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Keeps a value.
    pub fn keep(&self, name: &str, value: &str) {
        fs::write(self.path(name), value).unwrap();
    }

    /// What is kept.
    pub fn kept(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A program, as a script for sh that runs in the store.
    pub fn program(&self, name: &str, script: &str) {
        let bin = self.path("bin");
        fs::create_dir_all(&bin).unwrap();
        let text = format!("#!/bin/sh\nset -e\ncd {}\n{script}\n", self.folder.path().display());
        // Renamed into place: a file that a child just forked has open for writing cannot be run.
        let path = bin.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The command, with these programs on its PATH and no key in its environment.
    pub fn on_path(&self, rekey: Rekey) -> Rekey {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        rekey.env("PATH", path).without("ENCRYPTION_KEY").without("NEW_ENCRYPTION_KEY")
    }
}

/// The variables that a recipe sets: `export NAME='VALUE'` below its heading.
fn recipe(title: &str) -> Vec<(String, String)> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/key-sources.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, below) =
        page.split_once(&format!("\n### {title}\n")).unwrap_or_else(|| panic!("no recipe {title}"));
    let section = below.split("\n##").next().unwrap();
    let set = section.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    let set: Vec<_> =
        set.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect();
    assert!(set.len() >= 3, "{title}: {set:?}");
    set
}

/// There, back, there again, and the end. `back` is what gives the application the old key, where that is another command.
fn life(title: &str, programs: &[(&str, &str)], back: Option<&str>, read: impl Fn(&Stand) -> String) {
    let stand = Stand::new();
    for (name, script) in programs {
        stand.program(
            name,
            &format!("case \"$*\" in\n{script}\n*) echo \"{name}: unknown: $*\" >&2; exit 2 ;;\nesac"),
        );
    }
    let db = Db::new();
    Load::rows(30).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let recipe = recipe(title);
    let command = |arguments: &[&str]| {
        let with = |rekey: Rekey, (name, value): &(String, String)| rekey.env(name, value.as_str());
        recipe.iter().fold(stand.on_path(rekey(&db, [])).more(arguments), with)
    };
    command(&["run"]).exits(0);
    judge.all_on(&db, NEW);
    assert_eq!(read(&stand), OLD);
    command(&["promote", "--yes"]).exits(0);
    assert_eq!(read(&stand), NEW);
    command(&["verify"]).exits(0);
    let rollback = command(&["rollback", "--yes"]);
    let rollback = back.into_iter().fold(rollback, |rekey, back| rekey.env("REKEY_PROMOTE_COMMAND", back));
    rollback.exits(0);
    assert_eq!(read(&stand), OLD);
    judge.all_on(&db, OLD);
    command(&["run"]).exits(0);
    command(&["promote", "--yes"]).exits(0);
    command(&["finalize", "--yes"]).exits(0);
    judge.all_on(&db, NEW);
    let recorded: String = db.value("SELECT old_source FROM rekey.rotations ORDER BY id DESC LIMIT 1");
    assert!(recorded.starts_with("command:"), "{recorded}");
}

fn current(stand: &Stand) -> String {
    stand.kept("encryption_key").trim_end().to_owned()
}

#[test]
fn vault_kv() {
    let vault = r#"
"kv get -mount=kv -version=1 -field=value dashtam/encryption_key") cat encryption_key_old ;;
"kv get -mount=kv -field=value dashtam/encryption_key") cat encryption_key ;;
"kv get -mount=kv -field=value dashtam/encryption_key_new") cat encryption_key_new ;;
"kv put -mount=kv dashtam/encryption_key value=-") cat >encryption_key; echo "Key: version 2" ;;"#;
    life("Vault, KV version 2", &[("vault", vault)], None, current);
}

#[test]
fn vault_transit() {
    let vault = r#"
"read -format=json transit/export/encryption-key/dashtam/"[12])
    f=encryption_key; v=${3##*/}; [ $v = 1 ] || f=encryption_key_new
    printf '{"data":{"keys":{"%s":"%s"}}}\n' $v "$(base64 -w0 <$f)" ;;
"kv get -mount=kv -field=version dashtam/transit") cat version 2>/dev/null || printf 1 ;;
"kv put -mount=kv dashtam/transit version="[12]) printf %s "${5#version=}" >version ;;"#;
    let back = Some("vault kv put -mount=kv dashtam/transit version=1");
    life("Vault, Transit with exportable keys", &[("vault", vault)], back, |stand| match fs::read_to_string(
        stand.path("version"),
    )
    .as_deref()
    {
        Ok("2") => NEW.to_owned(),
        _ => OLD.to_owned(),
    });
}

#[test]
fn gcp_secret_manager() {
    let gcloud = r#"
"secrets versions access 1 --secret=dashtam-encryption-key") cat encryption_key_old ;;
"secrets versions access latest --secret=dashtam-encryption-key") cat encryption_key ;;
"secrets versions access latest --secret=dashtam-encryption-key-new") cat encryption_key_new ;;
"secrets versions add dashtam-encryption-key --data-file=-") cat >encryption_key; echo "Created version [2]" >&2 ;;"#;
    life("GCP Secret Manager", &[("gcloud", gcloud)], None, current);
}

#[test]
fn azure_key_vault() {
    let az = r#"
"keyvault secret show --vault-name dashtam --name encryption-key --version 0193b3b07d3e7c1a9a520d1e2f3a4b5c --query value --output tsv") cat encryption_key_old; echo ;;
"keyvault secret show --vault-name dashtam --name encryption-key --query value --output tsv") cat encryption_key; echo ;;
"keyvault secret show --vault-name dashtam --name encryption-key-new --query value --output tsv") cat encryption_key_new; echo ;;
"keyvault secret set --vault-name dashtam --name encryption-key --file /dev/stdin --encoding utf-8 --output none") cat /dev/stdin >encryption_key ;;"#;
    life("Azure Key Vault", &[("az", az)], None, current);
}

#[test]
fn parameter_store() {
    let aws = r#"
"ssm get-parameter --name /dashtam/production/encryption_key:1 --with-decryption --query Parameter.Value --output text") cat encryption_key_old; echo ;;
"ssm get-parameter --name /dashtam/production/encryption_key --with-decryption --query Parameter.Value --output text") cat encryption_key; echo ;;
"ssm get-parameter --name /dashtam/production/encryption_key_new --with-decryption --query Parameter.Value --output text") cat encryption_key_new; echo ;;
"ssm put-parameter --name /dashtam/production/encryption_key --type SecureString --overwrite --value file:///dev/stdin") cat /dev/stdin >encryption_key; echo '{"Version": 2}' ;;"#;
    life("AWS Systems Manager Parameter Store", &[("aws", aws)], None, current);
}

#[test]
fn one_password() {
    let op = r#"
"read --no-newline op://dashtam/encryption-key-old/password") cat encryption_key_old ;;
"read --no-newline op://dashtam/encryption-key/password") cat encryption_key ;;
"read --no-newline op://dashtam/encryption-key-new/password") cat encryption_key_new ;;
"item get encryption-key --vault dashtam --format json")
    printf '{"title":"encryption-key","fields":[{"id":"username","value":"x"},{"id":"password","value":"%s"}]}\n' "$(cat encryption_key)" ;;
"item edit encryption-key --vault dashtam")
    cat >item.json
    jq -e '.title == "encryption-key" and .fields[0].value == "x"' item.json >/dev/null
    jq -j '.fields[1].value' item.json >encryption_key ;;"#;
    life("1Password", &[("op", op)], None, current);
}

#[test]
fn sops() {
    let sops = r#"
'decrypt --extract ["encryption_key_old"] secrets/production.json') cat encryption_key_old ;;
'decrypt --extract ["encryption_key"] secrets/production.json') cat encryption_key ;;
'decrypt --extract ["encryption_key_new"] secrets/production.json') cat encryption_key_new ;;
'set --value-stdin secrets/production.json ["encryption_key"]') jq -j . >encryption_key ;;"#;
    life("SOPS", &[("sops", sops)], None, current);
}

#[test]
fn age() {
    let age = r#"
"--decrypt --identity identity.txt encryption_key_old.age") cat encryption_key_old ;;
"--decrypt --identity identity.txt encryption_key.age") cat encryption_key ;;
"--decrypt --identity identity.txt encryption_key_new.age") cat encryption_key_new ;;
"--encrypt --recipients-file recipients.txt --output encryption_key.age") cat >encryption_key ;;"#;
    life("age", &[("age", age)], None, current);
}
