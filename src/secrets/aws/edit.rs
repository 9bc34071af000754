//! A secret's content, and the key inside it: the whole string, or one field of a JSON object.
//!
//! Pure. Promotion, rollback, restore and rotate-secret-key all change a secret through [`edited`].

use thiserror::Error as ThisError;
use zeroize::Zeroizing;

use super::json_field::{JsonFieldError, read_field, replace_field};

/// Why a secret's content yields no key, or cannot take one. Names no value.
#[derive(Debug, PartialEq, Eq, ThisError)]
pub enum EditError {
    /// The field cannot be read or changed.
    #[error(transparent)]
    Field(#[from] JsonFieldError),
    /// The content is a JSON object, and no field was named.
    #[error("the secret is a JSON object, and no field is named")]
    FieldNotNamed,
    /// A secret's string has to be UTF-8.
    #[error("the value is not UTF-8, which a secret's string must be")]
    NotUtf8,
}

/// The key inside a secret's content.
pub(super) fn extracted(
    content: Zeroizing<Vec<u8>>,
    field: Option<&str>,
) -> Result<Zeroizing<Vec<u8>>, EditError> {
    match field {
        Some(field) => Ok(read_field(&content, field)?),
        None if is_object(&content) => Err(EditError::FieldNotNamed),
        None => Ok(content),
    }
}

/// The content with another key inside: the new key itself, or the object with that one field changed.
pub fn edited(content: &[u8], field: Option<&str>, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, EditError> {
    match field {
        Some(field) => Ok(replace_field(content, field, value)?),
        None if is_object(content) => Err(EditError::FieldNotNamed),
        None if std::str::from_utf8(value).is_err() => Err(EditError::NotUtf8),
        None => Ok(Zeroizing::new(value.to_vec())),
    }
}

fn is_object(content: &[u8]) -> bool {
    !matches!(read_field(content, ""), Err(JsonFieldError::NotAnObject))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_never_taken_for_a_key_or_overwritten_whole() {
        let json = b"{\"encryption_key\":\"k\",\"secret_key\":\"s\"}";
        let content = || Zeroizing::new(json.to_vec());
        assert_eq!(extracted(content(), None).err(), Some(EditError::FieldNotNamed));
        assert_eq!(edited(json, None, b"new").err(), Some(EditError::FieldNotNamed));
        assert_eq!(extracted(content(), Some("encryption_key")).unwrap().as_slice(), b"k");
        assert_eq!(edited(b"{old", None, b"new").unwrap().as_slice(), b"new");
        assert_eq!(edited(b"old", None, b"\xff").err(), Some(EditError::NotUtf8));
    }
}
