//! What differs from run to run becomes `…` or a name, so that the page reads the same after every capture.

/// What is to be shown instead of what, for one scenario.
pub struct Names {
    /// Replaced wherever they stand: fingerprints, the database's address, folders.
    pub words: Vec<(String, String)>,
    /// How far workers came before they were stopped is chance: every number is volatile.
    pub loose: bool,
}

impl Names {
    /// The whole output of a command.
    pub fn normal(&self, output: &str) -> String {
        let mut sampled = false;
        let mut line = |line: &str| {
            // Which rows are looked at is drawn by lot.
            sampled = line.starts_with("keys, on a sample of") || (sampled && !line.is_empty());
            let loose = self.loose || sampled || line.contains(" sampled ");
            self.line(line, loose) + "\n"
        };
        output.lines().filter(|line| !is_progress(line)).map(&mut line).collect()
    }

    fn line(&self, line: &str, loose: bool) -> String {
        let mut line = line.trim_end().to_owned();
        if let Some((version, rest)) = line.strip_prefix("PostgreSQL ").and_then(|rest| rest.split_once(','))
        {
            debug_assert!(version.starts_with(|c: char| c.is_ascii_digit()));
            line = format!("PostgreSQL …,{rest}");
        }
        for (from, to) in &self.words {
            line = line.replace(from, to);
        }
        numbers(&words(&line), loose)
    }
}

/// How far a run was after some seconds: which lines there are depends on the machine.
fn is_progress(line: &str) -> bool {
    ["pass ", "sweep ", "dry run: ", "waiting "]
        .iter()
        .any(|word| line.split_once("  INFO ").is_some_and(|(_, said)| said.starts_with(word)))
}

/// What a brief block shows: no counters, times, places or chain heads; one `⋮` a command stands for them.
pub fn brief(output: &str) -> String {
    const TOLD: [&str; 7] =
        ["state ", "throttle ", "promoted ", "on the wrong key", "no key decrypts", "quarantined ", "try: "];
    const HEADINGS: [&str; 4] = ["PostgreSQL …", "keys, on a sample", "a run", "findings"];
    let (mut out, mut left_out) = (String::new(), false);
    for line in output.lines() {
        let bare = line.trim_start();
        let detail = line.starts_with("  ") && !line.starts_with("      ");
        let told = TOLD.iter().any(|told| bare.starts_with(told));
        let zero = bare.starts_with("quarantined ") && bare.ends_with(" 0 rows");
        let heading = HEADINGS.iter().any(|heading| line.starts_with(heading));
        if line.is_empty() || heading || bare.starts_with("audit chain head") || bare.starts_with("→ ") {
            continue;
        }
        if detail && (!told || zero) {
            if !std::mem::replace(&mut left_out, true) {
                out.push_str("  ⋮\n");
            }
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[test]
fn a_brief_block_keeps_the_outcome_and_what_comes_next() {
    let output = "every row is on the new key\n\n  re-encrypted      1 rows\n  quarantined       0 rows\n  state     \
                  migrated\n  rotation  …\n\nnext: rekey verify\n      rekey promote\naudit chain head: …\n";
    let shown =
        "every row is on the new key\n  ⋮\n  state     migrated\nnext: rekey verify\n      rekey promote\n";
    assert_eq!(brief(output), shown);
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '.' | '+')
}

fn hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Identifiers and times, wherever they stand.
fn words(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(is_word) {
        out.push_str(&rest[..start]);
        let end = rest[start..].find(|c| !is_word(c)).map_or(rest.len(), |n| start + n);
        let word = rest[start..end].trim_end_matches(['.', ':']);
        out.push_str(&volatile(word).unwrap_or_else(|| word.to_owned()));
        rest = &rest[start + word.len()..];
        if word.is_empty() {
            let tail = rest.chars().next().map_or(0, char::len_utf8);
            out.push_str(&rest[..tail]);
            rest = &rest[tail..];
        }
    }
    out + rest
}

fn volatile(word: &str) -> Option<String> {
    let parts: Vec<&str> = word.split('-').collect();
    let uuid = parts.len() == 5 && parts.iter().zip([8, 4, 4, 4, 12]).all(|(part, len)| hex(part, len));
    // The rows of a scenario have ids of their own making, told by their zeros.
    if uuid && !word.starts_with("01900000-0000-") {
        return Some("…".into());
    }
    if hex(word, 64) || word.split_once(':').is_some_and(|(_, hash)| hex(hash, 64)) {
        return Some("…".into());
    }
    let date = parts.len() >= 3
        && parts[0].len() == 4
        && parts[0].parse::<u16>().is_ok()
        && parts[1].parse::<u8>().is_ok();
    if date && parts[2].len() >= 2 && parts[2][..2].parse::<u8>().is_ok() {
        return Some("…".into());
    }
    // An ARN ends in six characters of AWS's choosing.
    if parts.len() > 1 && word.len() > 7 && word.is_char_boundary(word.len() - 7) {
        let (name, drawn) = word.split_at(word.len() - 7);
        let of_a_key = name.ends_with("encryption_key")
            || name.ends_with("encryption_key_new")
            || name.ends_with("secret_key");
        if of_a_key && drawn.starts_with('-') {
            return Some(format!("{name}-…"));
        }
    }
    match word.strip_prefix("rekey-").and_then(|label| label.rsplit_once('-')) {
        Some((kind, id)) if hex(id, 8) => Some(format!("rekey-{kind}-…")),
        // A process is host, pid, and eight digits.
        None if parts.len() >= 3 && hex(parts[parts.len() - 1], 8) => Some("…".into()),
        _ => None,
    }
}

/// Times, rates and sizes; all numbers where `loose`.
fn numbers(line: &str, loose: bool) -> String {
    let chars: Vec<char> = line.chars().collect();
    let mut out = String::new();
    let mut i = 0;
    while i < chars.len() {
        let starts = chars[i].is_ascii_digit()
            && (i == 0 || !(is_word(chars[i - 1]) || matches!(chars[i - 1], '/' | '@' | '…')));
        if !starts {
            out.push(chars[i]);
            i += 1;
            continue;
        }
        let end = number_end(&chars, i);
        let after: String = chars[end..].iter().collect();
        let ends_here = after.chars().next().is_none_or(|c| !is_word(c) || c == '.');
        let measured = [" s", " ms", " MiB", " rows/s"].iter().any(|unit| {
            after.strip_prefix(unit).is_some_and(|more| !more.starts_with(|c: char| c.is_alphanumeric()))
        });
        if ends_here && (measured || loose) {
            // A column keeps its width; in a sentence the dots stand alone.
            if out.ends_with("  ") {
                out.extend(std::iter::repeat_n(' ', end - i - 1));
            }
            out.push('…');
        } else {
            out.extend(&chars[i..end]);
        }
        i = end;
    }
    out
}

/// The end of a number with its decimals and its groups of three digits.
fn number_end(chars: &[char], start: usize) -> usize {
    let digit = |i: usize| chars.get(i).is_some_and(char::is_ascii_digit);
    let mut end = start;
    while digit(end) || (chars.get(end) == Some(&'.') && digit(end + 1)) {
        end += 1;
    }
    while chars.get(end) == Some(&' ') && (1..=3).all(|n| digit(end + n)) && !digit(end + 4) {
        end += 4;
    }
    end
}

#[test]
fn what_differs_is_told_from_what_does_not() {
    let strict = Names { words: vec![("0123456789abcdef".into(), "OLD_FINGERPRINT".into())], loose: false };
    for (from, to) in [
        ("  re-encrypted                 1 000 rows", "  re-encrypted                 1 000 rows"),
        ("  time                           0.4 s", "  time                             … s"),
        ("  rate                        12 345 rows/s", "  rate                             … rows/s"),
        ("  keys  0123456789abcdef →", "  keys  OLD_FINGERPRINT →"),
        ("  rotation  0199c0de-1234-7000-8000-00000000abcd", "  rotation  …"),
        ("row 01900000-0000-7000-8000-0000000000aa", "row 01900000-0000-7000-8000-0000000000aa"),
        ("…:secret:dashtam/production/encryption_key-nLIkrV", "…:secret:dashtam/production/encryption_key-…"),
        ("PostgreSQL 15.18, x", "PostgreSQL …, x"),
        ("label rekey-old-0199c0de on", "label rekey-old-… on"),
        ("started 2026-11-25T02:00:00Z by", "started … by"),
        (
            "audit chain head: 3:0000000000000000000000000000000000000000000000000000000000000000",
            "audit chain head: …",
        ),
    ] {
        assert_eq!(strict.normal(from).trim_end(), to);
    }
    let loose = Names { words: Vec::new(), loose: true };
    assert_eq!(loose.normal("  done   1 234 of 5 000 rows"), "  done       … of … rows\n");
    assert_eq!(
        loose.normal("  a-host-12-0123abcd   2 workers, heard of 3 s ago"),
        "  …   … workers, heard of … s ago\n"
    );
}
