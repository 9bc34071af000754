//! The people to tell after a compromise, for a spreadsheet (RFC 4180).

use std::borrow::Cow;

use crate::jobs::report::Exposed;
use crate::store::report::Affected;
use crate::text::printable::printable;

/// The names of the columns.
pub const HEADER: &str = "rotation,compromised,complete,user_id,provider_slug,connection_id\r\n";

/// One connection.
pub fn line(of: &Exposed, who: &Affected) -> String {
    let fields = [
        of.rotation.to_string(),
        of.compromised.to_string(),
        of.complete.to_string(),
        who.user_id.to_string(),
        field(&who.provider_slug).into_owned(),
        who.connection_id.to_string(),
    ];
    fields.join(",") + "\r\n"
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
