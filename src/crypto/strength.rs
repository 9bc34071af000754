//! Keys that are no secret: published ones, placeholders, and the plainly guessable.
//!
//! Serves ENCRYPTION_KEY and SECRET_KEY alike. It is lenient on purpose: it must never refuse a key that came
//! from a random generator, and it cannot recognise a clever bad one.

use std::fmt;

/// Why a key is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weakness {
    /// It stands in a public repository or in the key management guide.
    Published,
    /// It is the text of a template, waiting to be replaced.
    Placeholder,
    /// It is made of very few different bytes, of a short block repeated, or of runs like `abcdef`.
    LowEntropy,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Weakness::Published => "it is a published example or test key",
            Weakness::Placeholder => "it is a placeholder from a template",
            Weakness::LowEntropy => {
                "it is too regular to be random: it has few different characters, a repeated block, or runs \
                 like abcdef"
            }
        })
    }
}

/// Values of ENCRYPTION_KEY in the application's repository and in its guide (docs/key-management.md, 1.2 and 2.2).
pub const PUBLISHED_ENCRYPTION_KEYS: &[&str] = &[
    "AES-256-key-for-provider-cred!",
    "ci-key-for-encryption-test-32!@#",
    "short",
    "test-key-for-encryption-32-ch!@#",
    "this-is-way-too-long-for-aes-256",
];

/// Values of SECRET_KEY in the guide (docs/key-management.md, 1.1 and 2.2).
pub const PUBLISHED_SECRET_KEYS: &[&str] = &[
    "dG9rZW4tc2lnbmluZy1rZXktZm9yLWRhc2h0YW0tcHJvZHVjdGlvbi1lbnZpcm9ubWVudC1oaWdobHktc2VjcmV0",
    "mysecret",
    "test-secret-key-for-automated-testing-only-never-use-in-production",
];

/// How templates begin, in lower case; cut to 32 bytes these still begin so.
const PLACEHOLDER_STARTS: &[&str] =
    &["your-secret-key", "your-encryption-key", "your_secret_key", "your_encryption_key"];

/// What templates contain anywhere, in lower case.
const PLACEHOLDER_PARTS: &[&str] =
    &["will-be-generated", "change-me", "change_me", "changeme", "placeholder", "replace-me", "replace_me"];

/// A part of a published key this long gives the key away, and no random key shares it.
const TELLING_LEN: usize = 16;

/// Of 32 random URL-safe characters, fewer than 8 being different has a probability below 10⁻²³.
const MIN_DISTINCT_BYTES: usize = 8;

/// The longest block whose repetition is told from a key: of 32 random bytes, 22 would have to equal those 10 before them.
const MAX_PERIOD: usize = 10;

/// Runs that the alphabet and the digits are put together of: `abc…z012345`. A random key of n bytes has about n/2.
const MAX_RUNS: usize = 3;

/// What is wrong with a key or SECRET_KEY, or `None` where nothing is known against it.
///
/// Published also are a published key cut short and one padded with further characters: the guide's advice
/// for a key of the wrong length. Lengths are not judged here.
pub fn weakness(key: &[u8]) -> Option<Weakness> {
    if PUBLISHED_ENCRYPTION_KEYS.iter().chain(PUBLISHED_SECRET_KEYS).any(|known| derives_from(key, known)) {
        return Some(Weakness::Published);
    }
    let is_placeholder = PLACEHOLDER_STARTS.iter().any(|start| starts_with(key, start))
        || PLACEHOLDER_PARTS.iter().any(|part| key.windows(part.len()).any(|at| starts_with(at, part)));
    if is_placeholder {
        return Some(Weakness::Placeholder);
    }
    let regular = distinct_bytes(key) < MIN_DISTINCT_BYTES || repeats(key) || runs(key) <= MAX_RUNS;
    regular.then_some(Weakness::LowEntropy)
}

fn derives_from(key: &[u8], known: &str) -> bool {
    let known = known.as_bytes();
    let common = known.len().min(key.len());
    key == known || common >= TELLING_LEN && key[..common] == known[..common]
}

fn starts_with(key: &[u8], start: &str) -> bool {
    key.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()))
}

/// Is it one block of up to [`MAX_PERIOD`] bytes, again and again?
fn repeats(key: &[u8]) -> bool {
    (1..=MAX_PERIOD.min(key.len() / 2)).any(|period| key[period..] == key[..key.len() - period])
}

/// How many runs of one step (`abcd`, `97531`) the key falls into; two bytes are always one.
fn runs(key: &[u8]) -> usize {
    let mut rest = key;
    let mut runs = 0;
    while !rest.is_empty() {
        let step = |pair: &[u8]| pair[1].wrapping_sub(pair[0]);
        let first = rest.windows(2).next().map(step);
        let steps = rest.windows(2).take_while(|pair| Some(step(pair)) == first).count();
        rest = &rest[steps + 1..];
        runs += 1;
    }
    runs
}

fn distinct_bytes(key: &[u8]) -> usize {
    let mut seen = [false; 256];
    key.iter().for_each(|&byte| seen[usize::from(byte)] = true);
    seen.iter().filter(|&&seen| seen).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_keys_are_known_also_cut_and_padded() {
        for known in PUBLISHED_ENCRYPTION_KEYS.iter().chain(PUBLISHED_SECRET_KEYS) {
            assert_eq!(weakness(known.as_bytes()), Some(Weakness::Published), "{known}");
        }
        for derived in ["AES-256-key-for-provider-cred!xY", "test-secret-key-for-automated-te"] {
            assert_eq!(weakness(derived.as_bytes()), Some(Weakness::Published), "{derived}");
        }
    }

    #[test]
    fn placeholders_are_known_in_any_case_and_cut() {
        for text in [
            "your-secret-key-will-be-generated-by-make-keys",
            "your-encryption-key-will-be-generated-by-make-keys",
            "your-encryption-key-will-be-gene",
            "YOUR_ENCRYPTION_KEY_GOES_HERE_32",
            "please-CHANGEME-before-you-ship!",
        ] {
            assert_eq!(weakness(text.as_bytes()), Some(Weakness::Placeholder), "{text}");
        }
    }

    #[test]
    fn few_different_bytes_and_short_blocks_are_low_entropy() {
        for text in [
            "",
            "a",
            "0123012301230123",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "abcabcabcabcabcabcabcabcabcabcab",
            "12345678123456781234567812345678",
            "12345678901234567890123456789012",
            "abcdefghabcdefghabcdefghabcdefgh",
            "S3cr3t-pwdS3cr3t-pwdS3cr3t-pwdS3",
            "abcdefghijklmnopqrstuvwxyz012345",
            "0123456789abcdefghijklmnopqrstuv",
            "ABCDEFGHIJKLMNOPQRSTUVWXYZ987654",
        ] {
            assert_eq!(weakness(text.as_bytes()), Some(Weakness::LowEntropy), "{text}");
        }
        assert_eq!(weakness(&[0; 32]), Some(Weakness::LowEntropy));
        let run: Vec<u8> = (0..32).map(|i| 200_u8.wrapping_add(7 * i)).collect();
        assert_eq!(weakness(&run), Some(Weakness::LowEntropy));
    }

    #[test]
    fn sixteen_bytes_of_a_published_key_tell_and_eight_different_bytes_are_enough() {
        assert_eq!(weakness(b"test-key-for-enc"), Some(Weakness::Published));
        assert_eq!(weakness(b"test-key-for-en"), None);
        assert_eq!(weakness(b"01234560123456"), Some(Weakness::LowEntropy));
        assert_eq!(weakness(b"0127456301274563"), Some(Weakness::LowEntropy));
        assert_eq!(weakness(b"01274563012745630"), Some(Weakness::LowEntropy));
        assert_eq!(weakness(b"0127456310274563"), None);
        assert_eq!(weakness(b"0123456789AabcdefghijB"), None);
    }

    #[test]
    fn each_weakness_says_what_it_is() {
        let said = [Weakness::Published, Weakness::Placeholder, Weakness::LowEntropy].map(|w| w.to_string());
        for (text, word) in said.iter().zip(["published", "placeholder", "too regular"]) {
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn what_a_generator_makes_passes() {
        for text in [
            "0123456789abcdef0123456789abcdef",
            "xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0",
            "deadbeefdeadbeefcafef00dcafe1234",
            "S3cr3t-pwd1S3cr3t-pwd1S3cr3t-pwd", // a period of 11
        ] {
            assert_eq!(weakness(text.as_bytes()), None, "{text}");
        }
    }
}
