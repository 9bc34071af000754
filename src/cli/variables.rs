//! Where a value came from, the command line or a variable, and which REKEY_ variables are none of rekey's.

use clap::Command;
use clap::error::{ContextKind, ContextValue};

use crate::error::Error;

/// Read without being a flag's.
const OTHERS: [&str; 2] = ["REKEY_BACKUP_PASSPHRASE", "REKEY_TERMINATION_LOG"];

/// What Kubernetes sets in every pod for a Service whose name begins with `rekey`.
const OF_SERVICES: [&str; 5] = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_", "_TCP", "_UDP"];

/// What is said for a flag on the command line, or else in its variable.
pub fn said(flag: &str) -> Option<String> {
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let typed = words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix(flag)? {
        "" => words.get(at + 1).cloned(),
        value => value.strip_prefix('=').map(str::to_owned),
    });
    typed.or_else(|| std::env::var(variable(flag)).ok())
}

/// Where the value of a flag came from: `--old-key`, or `REKEY_OLD_KEY`.
pub fn origin(flag: &str) -> String {
    let variable = variable(flag);
    match is_typed(flag) || std::env::var_os(&variable).is_none() {
        true => flag.to_owned(),
        false => variable,
    }
}

/// An error about a flag's value begins with the variable's name, where it came from there.
pub fn naming<T, E: Into<Error>>(flag: &str, parsed: Result<T, E>) -> Result<T, Error> {
    parsed.map_err(|e| {
        let (mut e, origin) = (e.into(), origin(flag));
        if origin != flag {
            e.message = format!("{origin}: {}", e.message);
        }
        e
    })
}

fn variable(flag: &str) -> String {
    format!("REKEY_{}", flag.trim_start_matches('-').to_uppercase().replace('-', "_"))
}

fn is_typed(flag: &str) -> bool {
    std::env::args_os().any(|word| {
        word.to_string_lossy().strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

/// A refused value that was not typed is called by the name of its variable.
pub fn called_by_its_variable(mut e: clap::Error) -> clap::Error {
    let Some(ContextValue::String(arg)) = e.get(ContextKind::InvalidArg) else { return e };
    let flag = arg.split([' ', '=']).next().unwrap_or_default().to_owned();
    if flag.starts_with("--") {
        let origin = origin(&flag);
        if origin != flag {
            let named = format!("{origin} ({arg})");
            e.insert(ContextKind::InvalidArg, ContextValue::String(named));
        }
    }
    e
}

/// Says which REKEY_ variables mean nothing, and which one may be meant. Values are not shown.
pub fn warn_of_strangers(rekey: &Command) {
    let mut known: Vec<String> = OTHERS.iter().map(ToString::to_string).collect();
    collect(rekey, &mut known);
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("REKEY_")) else { continue };
        if known.iter().any(|known| known == name) || is_not_for_us(name) {
            continue;
        }
        match nearest(name, &known) {
            Some(meant) => tracing::warn!("Unknown variable {name}. Did you mean {meant}?"),
            None => tracing::warn!("Unknown variable {name}. Run `rekey COMMAND --help` to list them"),
        }
    }
}

fn collect(command: &Command, known: &mut Vec<String>) {
    let named = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str());
    known.extend(named.map(str::to_owned));
    command.get_subcommands().for_each(|sub| collect(sub, known));
}

fn is_not_for_us(name: &str) -> bool {
    let service = OF_SERVICES.iter().any(|part| name.contains(part)) || name.ends_with("_PORT");
    service || (cfg!(feature = "fault-points") && name.starts_with("REKEY_FAULT"))
}

/// The variable that differs least, where that is little enough for a slip.
fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a String> {
    let bare = |name: &str| name.trim_start_matches("REKEY_").replace('_', "");
    let name = bare(name);
    let distances = known.iter().map(|known| (distance(&name, &bare(known)), known));
    let (distance, meant) = distances.min_by_key(|(distance, known)| (*distance, known.len()))?;
    (distance <= 1 + name.len() / 4).then_some(meant)
}

/// Letters to put in, take out, change, or exchange with the next one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<u8>, Vec<u8>) = (a.bytes().collect(), b.bytes().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let changed = usize::from(a[i - 1] != b[j - 1]);
                    let mut least =
                        (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + changed);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        least = least.min(rows[i - 2][j - 2] + 1);
                    }
                    least
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_variable_is_named_where_there_is_one() {
        let known: Vec<String> =
            ["LEASE_TTL", "WORKERS", "OLD_KEY", "NEW_KEY", "LOG_FORMAT", "TO", "BATCH_ROWS"]
                .map(|name| format!("REKEY_{name}"))
                .into();
        for (typed, meant) in [
            ("REKEY_LEASE_TLL", Some("REKEY_LEASE_TTL")),
            ("REKEY_LEASETTL", Some("REKEY_LEASE_TTL")),
            ("REKEY_WORKER", Some("REKEY_WORKERS")),
            ("REKEY_LOGFORMAT", Some("REKEY_LOG_FORMAT")),
            ("REKEY_BACTH_ROWS", Some("REKEY_BATCH_ROWS")),
            ("REKEY_SOMETHING_ELSE", None),
        ] {
            assert_eq!(nearest(typed, &known).map(String::as_str), meant, "{typed}");
        }
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_is_no_slip() {
        for name in
            ["REKEY_SERVICE_HOST", "REKEY_PORT", "REKEY_METRICS_PORT_9090_TCP_ADDR", "REKEY_PORT_9090_TCP"]
        {
            assert!(is_not_for_us(name), "{name}");
        }
        assert!(!is_not_for_us("REKEY_DEADLIN"));
    }
}
