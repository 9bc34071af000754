//! Dotenv files: reading never fails as a whole, and writing changes the one value and nothing else.

use rekey::secrets::dotenv::DotenvFile;
use zeroize::Zeroizing;

const NAMES: [&str; 6] = ["K", "A", "B", "export", "ENCRYPTION_KEY", "K K"];

/// `data`: a byte, a value of that length, and a file.
pub fn check(data: &[u8]) {
    let Some((&length, rest)) = data.split_first() else { return };
    let Some((value, text)) = rest.split_at_checked(usize::from(length)) else { return };
    let before = file(text);
    assert_eq!(before.bytes(), text);
    let values = NAMES.map(|name| get(&before, name));
    for (name, now) in NAMES.iter().zip(&values) {
        if let Ok(Some(now)) = now {
            assert!(!now.windows(2).any(|w| w == b"${"), "{name} depends on another variable");
        }
    }
    let Ok(after) = before.with("K", value) else { return };
    assert_eq!(get(&after, "K"), Ok(Some(value.to_vec())));
    for (name, before) in NAMES.iter().zip(values).skip(1) {
        assert_eq!(get(&after, name), before, "{name} changed, too");
    }
    let again = after.with("K", value).expect("what could be written once can be again");
    assert_eq!(again.bytes(), after.bytes(), "writing it again changes something");
    only_the_value_changed(text, after.bytes(), value);
}

fn file(text: &[u8]) -> DotenvFile {
    DotenvFile::parse(Zeroizing::new(text.to_vec()))
}

fn get(file: &DotenvFile, name: &str) -> Result<Option<Vec<u8>>, String> {
    file.get(name).map(|value| value.map(|value| value.to_vec())).map_err(|error| error.to_string())
}

/// Told from the bytes alone: where there is one place to change, all before it and all behind it is as it was, and
/// between stands no more than an assignment.
fn only_the_value_changed(before: &[u8], after: &[u8], value: &[u8]) {
    if before.windows(1).filter(|byte| *byte == b"K").count() > 1 {
        return;
    }
    let same = |pair: &(&u8, &u8)| pair.0 == pair.1;
    let head = before.iter().zip(after).take_while(same).count();
    let tail = before[head..].iter().rev().zip(after[head..].iter().rev()).take_while(same).count();
    let changed = &after[head..after.len() - tail];
    let whole = file(b"").with("K", value).expect("it was written before");
    let line_ends: usize = 4;
    assert!(
        changed.len() <= whole.bytes().len() + line_ends,
        "more than the value changed: {}",
        changed.escape_ascii()
    );
}
