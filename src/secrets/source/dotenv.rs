//! `dotenv:PATH#VAR`: one variable of a dotenv file, as it is named.

use std::fmt;
use std::path::{Path, PathBuf};

use super::env::is_variable;
use super::file::{no_key_as_path, parse_path};
use super::{KeySource, Place, SourceError, bad_name};
use crate::crypto::likeness::looks_like_key;

const A_VARIABLE: &str = "PATH#VAR";

/// One variable of one file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DotenvVariable {
    /// The file.
    pub path: PathBuf,
    /// The variable.
    pub var: String,
}

impl fmt::Display for DotenvVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dotenv:{}#{}", self.path.display(), self.var)
    }
}

impl Place for DotenvVariable {
    fn parse(rest: &str) -> Result<DotenvVariable, SourceError> {
        let Some((path, var)) = rest.rsplit_once('#') else {
            let path = parse_path("dotenv", rest)?;
            if looks_like_key(rest) {
                return bad_name("dotenv", A_VARIABLE);
            }
            return Err(SourceError::DotenvWithoutVariable { path: path.display().to_string() });
        };
        if !is_variable(var) {
            return bad_name("dotenv", A_VARIABLE);
        }
        Ok(DotenvVariable { path: parse_path("dotenv", path)?, var: var.to_owned() })
    }

    fn refuse_key(&self) -> Result<(), SourceError> {
        if looks_like_key(&self.var) {
            return bad_name("dotenv", A_VARIABLE);
        }
        no_key_as_path("dotenv", &self.path)
    }

    fn key_name(&self) -> Option<String> {
        Some(self.var.clone())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn is_promotable(&self) -> bool {
        true
    }

    fn is_live(&self) -> bool {
        true
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn file(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn in_copy(&self, copy: &Path) -> Option<KeySource> {
        Some(KeySource::dotenv_variable(copy, &self.var))
    }
}
