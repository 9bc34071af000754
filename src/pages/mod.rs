//! The pages' templates: Jinja text in `templates/`, which a designer can edit, and the few filters that it uses. A template
//! is given a report, or what `status` found, as JSON has it, and every value goes through [`printable`] and, in HTML, is escaped.

pub mod csv;
pub mod report;

use std::sync::LazyLock;

use minijinja::value::Serde;
use minijinja::{Environment, Output, State, UndefinedBehavior, Value, escape_formatter};
use serde::Serialize;

use crate::error::{Error, Exit, Result};
use crate::telemetry::progress::thousands;
use crate::text::age::age;
use crate::text::printable::printable;

/// The one style sheet.
pub const CSS: &str = include_str!("templates/page.css");
/// What the page to watch fetches itself anew with.
pub const SCRIPT: &str = include_str!("templates/page.js");

const TEMPLATES: &[(&str, &str)] = &[
    ("parts.html", include_str!("templates/parts.html")),
    ("report.html", include_str!("templates/report.html")),
    ("watch.html", include_str!("templates/watch.html")),
    ("report.txt", include_str!("templates/report.txt")),
];

static PAGES: LazyLock<std::result::Result<Environment<'static>, minijinja::Error>> = LazyLock::new(pages);

/// Fills a template.
pub fn fill(name: &str, values: impl Serialize) -> Result<String> {
    let wrong =
        |e: &minijinja::Error| Error::new(Exit::Internal, format!("can't make the page {name}: {e:#}"));
    let pages = PAGES.as_ref().map_err(wrong)?;
    let template = pages.get_template(name).map_err(|e| wrong(&e))?;
    template.render(Value::from(Serde(values))).map_err(|e| wrong(&e))
}

/// JSON that may stand in a `<script>` of a page: no character of it ends the element or acts on a terminal.
pub fn inert_json(json: &str) -> String {
    // Outside of strings JSON has none of these, and inside of them \u003c is the same character.
    let escaped = |c: char| match c {
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => format!("\\u{:04x}", c as u32),
        c => c.to_string(),
    };
    printable(&json.chars().map(escaped).collect::<String>()).into_owned()
}

fn pages() -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut pages = Environment::new();
    pages.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    pages.set_formatter(harmless);
    pages.add_filter("n", thousands);
    pages.add_filter("age", age);
    pages.add_filter("share", share);
    pages.add_filter("when", when);
    pages.add_filter("words", |word: String| word.replace('_', " "));
    pages.add_filter("line", |text: String| text.split_whitespace().collect::<Vec<_>>().join(" "));
    pages.add_filter("compact", compact);
    pages.add_filter("tight", tight);
    for (name, text) in TEMPLATES {
        pages.add_template(name, text)?;
    }
    Ok(pages)
}

/// What acts on a terminal, or turns the direction of text, is shown instead.
fn harmless(out: &mut Output, state: &mut State, value: &Value) -> std::result::Result<(), minijinja::Error> {
    match value.as_str().map(printable) {
        Some(text) if !value.is_safe() => escape_formatter(out, state, &Value::from(text.into_owned())),
        _ => escape_formatter(out, state, value),
    }
}

/// `12.5 %`.
fn share(n: i64, of: i64) -> String {
    match n as f64 / of as f64 * 100.0 {
        _ if of <= 0 => "–".to_owned(),
        share if n > 0 && share < 0.1 => "< 0.1 %".to_owned(),
        share if n < of && share > 99.9 => "> 99.9 %".to_owned(),
        share => format!("{share:.1} %"),
    }
}

/// `2026-11-30 03:15:09`, of an RFC 3339 time in UTC.
fn when(at: String) -> String {
    match at.get(..19) {
        Some(seconds) => seconds.replacen('T', " ", 1),
        None => at,
    }
}

/// The digits of a number stay on one line.
fn tight(text: String) -> String {
    let letters: Vec<char> = text.chars().collect();
    let digit = |at: usize| letters.get(at).is_some_and(char::is_ascii_digit);
    let within = |at: usize| at > 0 && digit(at - 1) && (1..=3).all(|n| digit(at + n)) && !digit(at + 4);
    let kept = |(at, &c): (usize, &char)| if c == ' ' && within(at) { '\u{a0}' } else { c };
    letters.iter().enumerate().map(kept).collect()
}

/// A value of an event: text as it is, anything else as JSON.
fn compact(value: Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => serde_json::to_string(&value).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_read() {
        assert!(PAGES.is_ok(), "{:#}", PAGES.as_ref().unwrap_err());
    }

    #[test]
    fn json_cannot_end_its_element() {
        let json = serde_json::json!({ "reason": "</script><b> & \u{1b}[2J \u{202e}\u{2028}" }).to_string();
        let inert = inert_json(&json);
        assert!(!inert.contains(['<', '>', '&', '\u{1b}', '\u{202e}', '\u{2028}']), "{inert}");
        let (before, after): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(&json).unwrap(), serde_json::from_str(&inert).unwrap());
        assert_eq!(before, after);
    }

    #[test]
    fn numbers_stay_whole() {
        let text = tight("12 000 of 1 080 200 rows at 2026-11-30 03:10, 5 rows".into());
        assert_eq!(text, "12\u{a0}000 of 1\u{a0}080\u{a0}200 rows at 2026-11-30 03:10, 5 rows");
    }

    #[test]
    fn shares_never_round_to_none_or_all() {
        let told =
            [(0, 0), (0, 7), (7, 7), (1, 100_000), (99_999, 100_000), (1, 8)].map(|(n, of)| share(n, of));
        assert_eq!(told, ["–", "0.0 %", "100.0 %", "< 0.1 %", "> 99.9 %", "12.5 %"]);
    }
}
