//! Whether a text is more likely a key than the name of one: people paste keys where their names belong.

/// More likely a key than the name of a variable or a file: random, or a long word of upper case, lower case and digits
/// without `/` or `.`.
pub fn looks_like_key(text: &str) -> bool {
    let has = |class: fn(&char) -> bool| text.chars().any(|c| class(&c));
    looks_random(text)
        || text.len() >= 24
            && !text.contains(['/', '.'])
            && has(char::is_ascii_uppercase)
            && has(char::is_ascii_lowercase)
            && has(char::is_ascii_digit)
}

/// What a generator prints for a key: 16, 32 or 64 bytes as hex, or 24, 32, 48 or 64 as base64 of either alphabet. Random
/// base64 changes between upper case, lower case, digits and signs at two thirds of its places, at a third at least (32
/// characters: all but one in 2000); names seldom do, and a path with a word in it is one.
pub fn looks_random(text: &str) -> bool {
    let class = |b: u8| match b {
        b'A'..=b'Z' => Some('A'),
        b'a'..=b'z' => Some('a'),
        b'0'..=b'9' => Some('0'),
        b'+' | b'/' | b'-' | b'_' | b'=' => Some('/'),
        _ => None,
    };
    let Some(classes) = text.bytes().map(class).collect::<Option<Vec<char>>>() else { return false };
    let changes = classes.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let is_path = text.contains('/') && classes.windows(6).any(|run| run == ['a'; 6]);
    match text.len() {
        32 | 64 | 128 if text.bytes().all(|b| b.is_ascii_hexdigit()) => true,
        32 | 43 | 44 | 64 | 86 | 88 => {
            3 * changes >= text.len() && classes.contains(&'A') && classes.contains(&'a') && !is_path
        }
        _ => false,
    }
}
