//! The grammar of key sources: what parses prints back as itself, and what does not may be a key, so it is shown by
//! no part of the error.

use rekey::error::{Error, Exit};
use rekey::secrets::{KeySource, SourceError};

/// `data`: a key source, if it is UTF-8.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match KeySource::parse(text) {
        Ok(source) => {
            let printed = source.to_string();
            let again = KeySource::parse(&printed);
            assert!(again.as_ref().is_ok_and(|again| *again == source), "{source:?} prints as {printed:?}");
            assert_eq!(again.map(|again| again.to_string()).ok(), Some(printed));
        }
        // Shown on purpose: it is the path of a file.
        Err(SourceError::DotenvWithoutVariable { path }) => {
            assert_eq!(text.strip_prefix("dotenv:"), Some(&*path));
            assert!(!path.contains('#'));
        }
        Err(error) => {
            let fixed = shown(match error {
                SourceError::NotASource => SourceError::NotASource,
                SourceError::SecretArgument => SourceError::SecretArgument,
                SourceError::BadName { scheme, expected } => SourceError::BadName { scheme, expected },
                other => panic!("a grammar does not end in {other:?}"),
            });
            let said = shown(KeySource::parse(text).expect_err("as before"));
            assert_eq!(said, fixed, "what is said depends on more than the kind of the error");
        }
    }
}

fn shown(error: SourceError) -> String {
    let debug = format!("{error:?} {error}");
    let error = Error::from(error);
    assert_eq!(error.exit, Exit::Usage);
    assert!(error.hint.is_some(), "every refusal says what to do");
    format!("{debug} {error:?}")
}
