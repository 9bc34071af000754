//! Text of an operator's, where the database cannot hold every character: a remark must never fail a command.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;
use sqlx::PgConnection;

use super::error::StoreError;
use super::statement::statements;

statements! {
    fn server_encoding() -> One<String> during "ask for the database's encoding":
        "SELECT current_setting('server_encoding')";
}

/// Encodings of databases, by what they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF8; and SQL_ASCII, which takes any bytes.
    Any,
    /// LATIN1: the first 256 characters.
    Latin1,
    /// All others: ASCII is in each of them.
    Ascii,
}

impl Encoding {
    /// Of the database at the other end; not asked where nothing depends on it.
    pub async fn for_text(conn: &mut PgConnection, is_ascii: bool) -> Result<Encoding, StoreError> {
        if is_ascii {
            return Ok(Encoding::Any);
        }
        Ok(match server_encoding(conn).await?.as_str() {
            "UTF8" | "SQL_ASCII" => Encoding::Any,
            "LATIN1" => Encoding::Latin1,
            _ => Encoding::Ascii,
        })
    }

    fn takes(self, c: char) -> bool {
        match self {
            Encoding::Any => true,
            Encoding::Latin1 => c as u32 <= 0xff,
            Encoding::Ascii => c.is_ascii(),
        }
    }

    /// The text with what does not fit written as `<U+2013>`.
    pub fn fit(self, text: &str) -> Cow<'_, str> {
        if text.chars().all(|c| self.takes(c)) {
            return Cow::Borrowed(text);
        }
        let mut fitting = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            if self.takes(c) {
                fitting.push(c);
            } else {
                let _ = write!(fitting, "<U+{:04X}>", c as u32);
            }
        }
        Cow::Owned(fitting)
    }

    /// The same of every text in a JSON value.
    pub fn fit_json(self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fit(&text).into_owned()),
            Value::Array(values) => values.into_iter().map(|value| self.fit_json(value)).collect(),
            Value::Object(members) => members
                .into_iter()
                .map(|(name, value)| (self.fit(&name).into_owned(), self.fit_json(value)))
                .collect(),
            other => other,
        }
    }
}

/// Text that fits into the database at the other end.
pub async fn fit<'a>(conn: &mut PgConnection, text: &'a str) -> Result<Cow<'a, str>, StoreError> {
    Ok(Encoding::for_text(conn, text.is_ascii()).await?.fit(text))
}

/// A remark, where there is one.
pub async fn fit_remark<'a>(
    conn: &mut PgConnection,
    text: Option<&'a str>,
) -> Result<Option<Cow<'a, str>>, StoreError> {
    match text {
        Some(text) => fit(conn, text).await.map(Some),
        None => Ok(None),
    }
}

/// The same of a JSON value.
pub async fn fit_json(conn: &mut PgConnection, value: Value) -> Result<Value, StoreError> {
    let encoding = Encoding::for_text(conn, value.to_string().is_ascii()).await?;
    Ok(encoding.fit_json(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_written_out() {
        assert_eq!(Encoding::Any.fit("2026 – é 😀"), "2026 – é 😀");
        assert_eq!(Encoding::Latin1.fit("2026 – é 😀"), "2026 <U+2013> é <U+1F600>");
        assert_eq!(Encoding::Ascii.fit("é"), "<U+00E9>");
        let value = json!({ "–": ["–", 1, null, { "a": "é" }] });
        assert_eq!(
            Encoding::Latin1.fit_json(value),
            json!({ "<U+2013>": ["<U+2013>", 1, null, { "a": "é" }] })
        );
    }
}
