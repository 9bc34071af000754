//! What a program said, with everything that may be a key or a token masked. Too much is masked rather than too little:
//! an id of a request is no loss.

use crate::crypto::likeness::looks_like_key;

const MASK: &str = "(masked)";

/// The most that is repeated of what a program said: its end.
const MAX_TOLD: usize = 2048;

/// From this length on, a run of mixed characters may be a token.
const TOKEN: usize = 20;

/// The text on one line, without the `known` secrets and without what looks like one.
pub(super) fn mask(said: &str, known: &[&[u8]]) -> String {
    let mut said = said.to_owned();
    for secret in known.iter().filter_map(|secret| std::str::from_utf8(secret).ok()) {
        // A secret of many lines (a JSON document) is looked for line by line.
        for line in secret.lines().map(str::trim).filter(|line| line.len() >= 8) {
            said = said.replace(line, MASK);
        }
    }
    let lines = said.lines().map(|line| line.split_whitespace().map(word).collect::<Vec<_>>().join(" "));
    let told = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let from =
        told.char_indices().map(|(at, _)| at).find(|at| told.len() - at <= MAX_TOLD).unwrap_or_default();
    told[from..].to_owned()
}

/// One word, whose parts are judged one by one.
fn word(word: &str) -> String {
    let quotes = ['"', '\'', '`', '(', ')', '[', ']', '{', '}', '<', '>', ',', ';'];
    let parts = word.split(quotes).flat_map(|part| {
        std::iter::once(part).chain(part.split(['=', '&'])).map(|part| part.trim_end_matches([':', '.']))
    });
    if let Some(key) = parts.into_iter().find(|part| is_odd_key(part)) {
        return word.replace(key, MASK);
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+/_-.=~".contains(c);
    let mut masked = String::with_capacity(word.len());
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        masked.push_str(&run_of(run));
        let next = after.find(is_part).unwrap_or(after.len());
        masked.push_str(&after[..next]);
        rest = &after[next..];
    }
    masked
}

/// `NAME=VALUE` is judged by both, and by the whole: base64 ends with `=`.
fn run_of(run: &str) -> String {
    if is_secret(run.trim_end_matches('=')) || is_secret(run) {
        return match run.split_once('=') {
            Some((name, value)) if !value.trim_matches('=').is_empty() && !is_secret(name) => {
                format!("{name}={MASK}")
            }
            _ => MASK.to_owned(),
        };
    }
    match run.split_once('=') {
        Some((name, value)) if is_secret(value.trim_end_matches('=')) => format!("{name}={MASK}"),
        _ => run.to_owned(),
    }
}

/// 32 characters with signs that names do not have: the application takes any text of that length for a key.
fn is_odd_key(word: &str) -> bool {
    word.len() == 32 && word.contains(|c: char| "!@#$%^&*?~+".contains(c)) && !word.contains("://")
}

fn is_secret(run: &str) -> bool {
    let has = |class: fn(&char) -> bool| run.chars().any(|c| class(&c));
    let mixed = has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase) && has(char::is_ascii_digit);
    let lower = |run: &[u8]| run.iter().all(u8::is_ascii_lowercase);
    let is_path = run.contains('/') && run.as_bytes().windows(6).any(lower);
    let hex = run.len() >= 32 && run.bytes().all(|b| b.is_ascii_hexdigit());
    let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
    // AGE-SECRET-KEY-1…, base32.
    let armoured = run.len() >= 26 && run.chars().all(upper) && has(char::is_ascii_digit);
    looks_like_key(run) || hex || armoured || (run.len() >= TOKEN && mixed && !is_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_may_be_a_key_is_masked() {
        for secret in [
            "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFi",
            "test-key-for-encryption-32-ch!@#",
            "b115f95a86f052185186bbb6f21adba4",
            "4v5o+sQ+IhdJdMyYYmxbp/tMY/HHi1BKfKeS0Mba8HI=",
            "hvs.CAESIJxS2kPq9mLw3Vb7Nn4Yt6Rr8Zz1",
            "AGE-SECRET-KEY-1QYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSQ3F5E6J",
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
            "aB3dE6gH9jK2mN5pQ8sT",
        ] {
            for said in [
                secret.to_owned(),
                format!("the value \"{secret}\" is no JSON"),
                format!("VAULT_TOKEN={secret}"),
                format!("{{\"data\":{{\"value\":\"{secret}\"}}}}"),
                format!("https://vault.example.com/v1/kv?token={secret}&x=1"),
                format!("permission denied\n  token: {secret}\n"),
            ] {
                let told = mask(&said, &[]);
                assert!(!told.contains(secret) && told.contains(MASK), "{told}");
            }
        }
    }

    #[test]
    fn what_is_known_is_masked_whatever_it_looks_like() {
        assert_eq!(mask("got hunter2hunter2 twice", &[b"hunter2hunter2"]), "got (masked) twice");
    }

    #[test]
    fn what_a_person_needs_is_told() {
        for said in [
            "Error making API request.; URL: GET https://vault.example.com:8200/v1/kv/data/dashtam/production",
            "ERROR: (gcloud.secrets.versions.access) NOT_FOUND: Secret [projects/123456789012/secrets/dashtam-key]",
            "An error occurred (AccessDeniedException) when calling the GetParameter operation",
            "arn:aws:ssm:eu-central-1:123456789012:parameter/dashtam/encryption_key",
            "request 0193b3b0-7d3e-7c1a-9a52-0d1e2f3a4b5c at 2026-01-02T03:04:05Z",
        ] {
            assert_eq!(mask(said, &[]), said);
        }
    }

    #[test]
    fn the_end_is_kept() {
        let told = mask(&"ä line\n".repeat(2000), &[]);
        assert!(told.len() <= MAX_TOLD && told.ends_with("ä line"), "{}", told.len());
    }
}
