//! The key in a secret that was exported by hand and encrypted: itself, quoted as JSON, a JSON object with a field for
//! each key, or all of what `aws secretsmanager get-secret-value` printed.

use zeroize::Zeroizing;

use crate::crypto::KEY_LEN;
use crate::error::{Error, Exit, Result};
use crate::jobs::keys::subject::kind_of;
use crate::secrets::aws::{JsonFieldError, is_object, read_field, read_string};
use crate::secrets::{AppKey, KeySource};

/// Where `get-secret-value` has the secret's content.
const SECRET_STRING: &str = "SecretString";

/// How often one form may be inside of another: an answer, its quoted object, that object's field.
const DEPTH: usize = 4;

/// The key for this place. A JSON object that has none for it is refused (3): put there whole, no command could read it.
pub(super) fn key_in(mut content: Zeroizing<Vec<u8>>, target: &KeySource) -> Result<Zeroizing<Vec<u8>>> {
    let kind = kind_of(target);
    for _ in 0..DEPTH {
        // Whatever it looks like, a key of the right length is one.
        if kind == Some(AppKey::Encryption) && content.len() == KEY_LEN {
            break;
        }
        if let Some(said) = read_string(&content) {
            content = said;
        } else if is_object(&content) {
            content = field_for(&content, target, kind)?;
        } else {
            break;
        }
    }
    Ok(content)
}

fn field_for(object: &[u8], target: &KeySource, kind: Option<AppKey>) -> Result<Zeroizing<Vec<u8>>> {
    let named = target.aws().and_then(|aws| aws.field.as_deref());
    let of_kind = [kind.map(AppKey::field), kind.map(AppKey::variable), Some(SECRET_STRING)];
    // A field that the target names is that one or none, but for the answer around it.
    let fields = match named {
        Some(field) => vec![field, SECRET_STRING],
        None => of_kind.into_iter().flatten().collect(),
    };
    for field in &fields {
        match read_field(object, field) {
            Err(JsonFieldError::NoSuchField) => {}
            found => {
                return found.map_err(|e| {
                    Error::new(Exit::Key, format!("the backup's field {field}: {e}; nothing was changed"))
                });
            }
        }
    }
    let fields = fields.join(", ");
    Err(Error::new(
        Exit::Key,
        format!(
            "the backup is a JSON object without a key for {target} (looked for {fields}); nothing was \
            changed"
        ),
    )
    .hint(
        "Name a place whose name shows which key it is, or encrypt the key alone with `gpg --symmetric \
        --cipher-algo AES256`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0";

    fn taken(content: &str, target: &str) -> Option<String> {
        let target = KeySource::parse(target).unwrap_or_else(|e| panic!("{e}"));
        let key = key_in(Zeroizing::new(content.as_bytes().to_vec()), &target);
        key.map(|key| String::from_utf8(key.to_vec()).unwrap())
            .map_err(|e| assert_eq!(e.exit, Exit::Key))
            .ok()
    }

    #[test]
    fn the_field_for_the_place_is_taken() {
        let object = format!(r#"{{"secret_key":"s","encryption_key":"{KEY}","odd":"o"}}"#);
        let variables = format!(r#"{{"SECRET_KEY":"s","ENCRYPTION_KEY":"{KEY}"}}"#);
        let quoted = serde_json::to_string(KEY).unwrap();
        let answer = |content: &str| {
            let content = serde_json::to_string(content).unwrap();
            format!(
                r#"{{"ARN":"arn:aws:x","Name":"n","VersionId":"v","SecretString":{content},"VersionStages":[]}}"#
            )
        };
        for text in [KEY, &quoted, &object, &variables, &answer(KEY), &answer(&object), &answer(&quoted)] {
            assert_eq!(taken(text, "aws:app/encryption_key").as_deref(), Some(KEY), "{text}");
            assert_eq!(taken(text, "dotenv:.env#ENCRYPTION_KEY").as_deref(), Some(KEY), "{text}");
        }
        for text in [&object, &answer(&object)] {
            assert_eq!(taken(text, "aws:app#odd").as_deref(), Some("o"), "{text}");
            assert_eq!(taken(text, "aws:app/secret_key").as_deref(), Some("s"), "{text}");
        }
    }

    #[test]
    fn an_object_without_a_key_for_the_place_is_refused() {
        let object = format!(r#"{{"encryption_key":"{KEY}","n":1}}"#);
        for target in ["aws:app/secret_key", "aws:app#other", "aws:app#n", "file:/run/key"] {
            assert_eq!(taken(&object, target), None, "{target}");
        }
        // Not JSON, or not an object: whoever made it knows why.
        assert_eq!(taken("{not json", "file:/run/key").as_deref(), Some("{not json"));
    }

    #[test]
    fn a_key_of_the_right_length_is_taken_as_it_is() {
        let odd = r#""xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5g""#;
        assert_eq!(taken(odd, "aws:app/encryption_key").as_deref(), Some(odd));
    }
}
