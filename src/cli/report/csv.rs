//! The people to tell after a compromise, for a spreadsheet (RFC 4180).

use std::borrow::Cow;

use crate::cli::printable::printable;
use crate::jobs::report::Exposed;

/// A line for each connection, below one with the names of the columns.
pub fn of(exposed: &[Exposed]) -> String {
    let mut text = String::from("rotation,compromised,complete,user_id,provider_slug,connection_id\r\n");
    for one in exposed {
        for who in &one.affected {
            let fields = [
                one.rotation.to_string(),
                one.compromised.to_string(),
                one.complete.to_string(),
                who.user_id.to_string(),
                field(&who.provider_slug).into_owned(),
                who.connection_id.to_string(),
            ];
            text += &fields.join(",");
            text += "\r\n";
        }
    }
    text
}

/// Quoted where it must be. What a spreadsheet would take for a formula gets an apostrophe before it, as they want it.
fn field(text: &str) -> Cow<'_, str> {
    let text = printable(text);
    let formula = text.starts_with(['=', '+', '-', '@', '\t']);
    if !formula && !text.contains([',', '"', '\n', '\r']) {
        return text;
    }
    let apostrophe = if formula { "'" } else { "" };
    Cow::Owned(format!("\"{apostrophe}{}\"", text.replace('"', "\"\"")))
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_are_quoted_and_are_no_formulas() {
        assert_eq!(field("plaid"), "plaid");
        assert_eq!(field("a, \"b\""), "\"a, \"\"b\"\"\"");
        assert_eq!(field("=HYPERLINK(1)"), "\"'=HYPERLINK(1)\"");
        assert_eq!(field("\u{1b}[2J"), "\\u001b[2J");
    }
}
