//! A secret's content, and the key inside it: the whole string, or one field of a JSON object.
//!
//! Pure. Promotion and rollback change a secret through [`edited`], which never adds a field; generate, restore and
//! rotate-secret-key through [`set`], which may.

use thiserror::Error as ThisError;
use zeroize::Zeroizing;

use super::json_field::{JsonFieldError, read_field, replace_field, set_field};

/// Why a secret's content yields no key, or cannot take one. Names no value.
#[derive(Debug, PartialEq, Eq, ThisError)]
pub enum EditError {
    /// The field cannot be read or changed.
    #[error(transparent)]
    Field(#[from] JsonFieldError),
    /// The content is a JSON object, and no field was named.
    #[error("the secret is a JSON object, but the source names no field")]
    FieldNotNamed,
    /// The value is a JSON object, and would make one of a secret that is the key itself.
    #[error("the value is a JSON object, not a plain key")]
    ValueIsObject,
    /// A secret's string has to be UTF-8; what is binary need not.
    #[error("the value is not UTF-8, as a secret's string must be")]
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

/// The same; nothing where the object has no such field.
pub(super) fn extracted_if_any(
    content: Zeroizing<Vec<u8>>,
    field: Option<&str>,
) -> Result<Zeroizing<Vec<u8>>, EditError> {
    match extracted(content, field) {
        Err(EditError::Field(JsonFieldError::NoSuchField)) => Ok(Zeroizing::default()),
        found => found,
    }
}

/// The content with another key inside: the new key itself, or the object with that one field changed.
pub fn edited(content: &[u8], field: Option<&str>, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, EditError> {
    match field {
        Some(field) => Ok(replace_field(content, field, value)?),
        None if is_object(content) => Err(EditError::FieldNotNamed),
        None if is_object(value) => Err(EditError::ValueIsObject),
        None => Ok(Zeroizing::new(value.to_vec())),
    }
}

/// The same; a field that the object has not is added to it.
pub(super) fn set(
    content: &[u8],
    field: Option<&str>,
    value: &[u8],
) -> Result<Zeroizing<Vec<u8>>, EditError> {
    match field {
        Some(field) => Ok(set_field(content, field, value)?),
        None => edited(content, None, value),
    }
}

/// The content as a secret's string.
pub(super) fn text(content: &[u8]) -> Result<&str, EditError> {
    std::str::from_utf8(content).map_err(|_| EditError::NotUtf8)
}

/// Whether it is a JSON object, which no key is.
pub fn is_object(content: &[u8]) -> bool {
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
        assert_eq!(edited(b"old", None, b" {\"k\":1}").err(), Some(EditError::ValueIsObject));
        assert_eq!(edited(b"{old", None, b"new").unwrap().as_slice(), b"new");
        assert_eq!(set(json, None, b"new").err(), Some(EditError::FieldNotNamed));
        assert_eq!(edited(b"\xfe", None, b"\xff").unwrap().as_slice(), b"\xff");
        assert_eq!(text(b"\xff"), Err(EditError::NotUtf8));
    }

    #[test]
    fn only_what_is_set_may_be_absent_before() {
        let json = b"{\"secret_key\":\"s\"}";
        let (content, field) = (|| Zeroizing::new(json.to_vec()), Some("encryption_key"));
        let absent = Some(EditError::Field(JsonFieldError::NoSuchField));
        assert_eq!(extracted(content(), field).err(), absent);
        assert_eq!(edited(json, field, b"k").err(), absent);
        assert!(extracted_if_any(content(), field).unwrap().is_empty());
        let added = set(json, field, b"k").unwrap();
        assert_eq!(added.as_slice(), b"{\"secret_key\":\"s\",\"encryption_key\":\"k\"}");
    }
}
