//! What a program sees of rekey's environment: everything but keys, passwords and rekey's own settings. It needs its own
//! credentials (VAULT_TOKEN, AWS_*, a proxy), whatever they are called. A variable is a key's by its name, where a flag or a
//! setting names it as `env:VAR`, or once it was found in the ledger ([`withhold`]): the program that prints the database's
//! password is started before the ledger is read.

use std::collections::HashSet;
use std::ffi::OsString;
use std::sync::{Mutex, PoisonError};

/// The application's secrets, and the database's.
const WITHHELD: &[&str] = &["SECRET_KEY", "ENCRYPTION_KEY", "DATABASE_URL", "REDIS_URL", "PGPASSWORD"];

/// The variables that hold keys though no argument says so.
static FOUND: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps a variable from every program that is started from now on: it holds a key.
pub fn withhold(variable: &str) {
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if !found.iter().any(|known| known == variable) {
        found.push(variable.to_owned());
    }
}

/// The environment of a child.
pub(super) fn of_a_child() -> Vec<(OsString, OsString)> {
    let arguments = std::env::args_os().filter_map(|argument| argument.into_string().ok());
    let settings = std::env::vars_os().filter(|(name, _)| is_setting(&name.to_string_lossy()));
    let mut named = keys_named(arguments.chain(settings.filter_map(|(_, value)| value.into_string().ok())));
    named.extend(FOUND.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
    std::env::vars_os().filter(|(name, _)| is_passed_on(&name.to_string_lossy(), &named)).collect()
}

fn is_setting(name: &str) -> bool {
    name.starts_with("REKEY_")
}

fn is_passed_on(name: &str, keys: &HashSet<String>) -> bool {
    let withheld = WITHHELD
        .iter()
        .any(|end| name.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('_')));
    !withheld && !is_setting(name) && !keys.contains(name)
}

/// The variables that flags and settings name as places of a key: `env:VAR`.
fn keys_named(texts: impl Iterator<Item = String>) -> HashSet<String> {
    let variable = |text: String| {
        let value = if text.starts_with("--") { text.split_once('=')?.1 } else { &text };
        Some(value.strip_prefix("env:")?.to_owned())
    };
    texts.filter_map(variable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_passwords_and_settings_stay_here() {
        let texts = ["run", "--old-key=env:OLD", "--new-key", "env:NEXT", "env:ENV"].map(str::to_owned);
        let keys = keys_named(texts.into_iter());
        for name in [
            "ENCRYPTION_KEY",
            "NEW_ENCRYPTION_KEY",
            "SECRET_KEY",
            "DATABASE_URL",
            "TEST_DATABASE_URL",
            "REDIS_URL",
            "PGPASSWORD",
            "REKEY_BACKUP_PASSPHRASE",
            "REKEY_OLD_KEY",
            "OLD",
            "NEXT",
            "ENV",
        ] {
            assert!(!is_passed_on(name, &keys), "{name}");
        }
        for name in ["PATH", "HOME", "VAULT_TOKEN", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "MY_SECRET_KEYS"]
        {
            assert!(is_passed_on(name, &keys), "{name}");
        }
    }
}
