//! libpq's connection service file (PostgreSQL manual, 34.17): sections of `name=value` lines. Reads; decides nothing.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::error::DsnError;

/// Where libpq looks: PGSERVICEFILE, the user's own, the system's.
pub(super) fn path(environment: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let own = || environment("HOME").map(|home| PathBuf::from(home).join(".pg_service.conf"));
    let system = || environment("PGSYSCONFDIR").map(|folder| PathBuf::from(folder).join("pg_service.conf"));
    match environment("PGSERVICEFILE") {
        Some(path) => Some(path.into()),
        None => own().filter(|path| path.exists()).or_else(system),
    }
}

/// What it says of one service. A value may be a password, so each is wiped when dropped, as is the file's text.
pub(super) fn read(path: &Path, service: &str) -> Result<Vec<(String, Zeroizing<String>)>, DsnError> {
    let failed = |cause: String| DsnError::Service { path: path.display().to_string(), cause };
    let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|e| failed(e.to_string()))?;
    let (mut inside, mut found, mut pairs) = (false, false, Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name == service && !found;
            found |= inside;
        } else if inside {
            let (name, value) =
                line.split_once('=').ok_or_else(|| failed("a line is no NAME=VALUE".to_owned()))?;
            pairs.push((name.trim().to_owned(), Zeroizing::new(value.to_owned())));
        }
    }
    if found { Ok(pairs) } else { Err(failed("it does not have the service that is asked for".to_owned())) }
}
