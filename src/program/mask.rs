//! What may be a secret: masked in what a program said, and refused among the arguments of a source that is recorded. Too
//! much is masked rather than too little: an id of a request is no loss. An argument may be the id of a version, or a name.

use std::borrow::Cow;

use uuid::Uuid;

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

/// Whether a secret is among the words of a command, or in a script for a shell that is one of them.
pub(super) fn is_among(words: &[String]) -> bool {
    let pieces: Vec<&str> = words.iter().flat_map(|word| word.split_whitespace()).collect();
    let mut before = "";
    pieces.into_iter().any(|piece| {
        let before = std::mem::replace(&mut before, piece);
        let (option, value) = piece.split_once('=').unwrap_or((before, piece));
        let value = value.trim_matches(QUOTES);
        let scheme = before.trim_matches(QUOTES);
        let follows = before.starts_with('-') && !before.contains('=') && names_token(before)
            || ["bearer", "basic"].iter().any(|name| scheme.eq_ignore_ascii_case(name));
        let is_named = names_version(option) && is_version(value) || is_name(value) && !is_issued(value);
        follows && !is_reference(piece) || word(piece) != piece && (!is_named || names_secret(option))
    })
}

/// `--version ID`, `--secret-version-id=ID`.
fn names_version(option: &str) -> bool {
    option.starts_with('-') && (option.ends_with("version") || option.ends_with("-id"))
}

/// As Azure numbers its versions; AWS's are UUIDs, which look like no secret.
fn is_version(value: &str) -> bool {
    value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Two thirds of it are in words, as in `DashtamEncryptionKey2`; of a random text it is a third.
fn is_name(value: &str) -> bool {
    let (mut in_words, mut word) = (0, 0);
    for c in value.chars().chain(['.']) {
        match c {
            'a'..='z' => word += 1,
            _ => {
                in_words += if word > 3 { word } else { 0 };
                word = usize::from(c.is_ascii_uppercase());
            }
        }
    }
    3 * in_words >= 2 * value.len()
}

/// What stands for a value: a variable of a shell, a file, another option.
fn is_reference(value: &str) -> bool {
    let value = value.trim_matches(QUOTES);
    value.is_empty() || value.starts_with(['$', '@', '/', '-', '%'])
}

/// `VAULT_TOKEN`, `--provider-token`.
fn names_token(name: &str) -> bool {
    name.trim_start_matches(QUOTES).to_ascii_lowercase().ends_with("token")
}

/// The name of a value that is a secret whatever it looks like.
fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let ends = ["token", "password", "passwd", "passphrase", "secret_access_key", "client_secret"];
    ends.iter().any(|end| name.ends_with(end))
}

const QUOTES: &[char] = &['"', '\'', '`', '(', ')', '[', ']', '{', '}', '<', '>', ',', ';'];

/// One word, whose parts are judged one by one.
fn word(word: &str) -> String {
    let word = &*without_password(word);
    // The six characters that Secrets Manager adds to a name are no part of it.
    let named = word.rsplit_once('-').filter(|(_, added)| word.starts_with("arn:") && added.len() == 6);
    match named {
        Some((name, added)) => format!("{}-{added}", masked(name)),
        None => masked(word),
    }
}

/// `scheme://user:password@host`.
fn without_password(word: &str) -> Cow<'_, str> {
    let found = || {
        let from = word.find("://")? + 3;
        let authority = word[from..].split(['/', '?', '#']).next()?;
        let (user, host) = authority.rsplit_once('@')?;
        let (name, password) = user.split_once(':')?;
        (!password.is_empty() && !is_reference(password))
            .then(|| format!("{}{name}:{MASK}@{host}{}", &word[..from], &word[from + authority.len()..]))
    };
    found().map_or(Cow::Borrowed(word), Cow::Owned)
}

fn masked(word: &str) -> String {
    let parts = word.split(QUOTES).flat_map(|part| {
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

/// `NAME=VALUE` is judged by both; base64 ends with `=`.
fn run_of(run: &str) -> String {
    let judged = |text: &str| is_secret(text.trim_end_matches('=')) || is_secret(text);
    match run.split_once('=') {
        Some((name, value)) if !value.trim_matches('=').is_empty() => {
            let hide = judged(value) || names_secret(name) && !is_reference(value);
            let name = if is_secret(name) { MASK } else { name };
            format!("{name}={}", if hide { MASK } else { value })
        }
        _ if judged(run) => MASK.to_owned(),
        _ => run.to_owned(),
    }
}

/// 32 characters with signs that names do not have: the application takes any text of that length for a key.
fn is_odd_key(word: &str) -> bool {
    word.len() == 32 && word.contains(|c: char| "!@#$%^&*?~+".contains(c)) && !word.contains("://")
}

fn is_secret(run: &str) -> bool {
    let has = |run: &str, class: fn(&char) -> bool| run.chars().any(|c| class(&c));
    let is_mixed = |run: &str| {
        run.len() >= TOKEN
            && has(run, char::is_ascii_uppercase)
            && has(run, char::is_ascii_lowercase)
            && has(run, char::is_ascii_digit)
    };
    let lower = |run: &[u8]| run.iter().all(u8::is_ascii_lowercase);
    let mixed = match run.starts_with(['/', '.', '~']) {
        // A path from its beginning: each folder is a name of its own.
        true => run.split('/').any(is_mixed),
        false => is_mixed(run) && !(run.contains('/') && run.as_bytes().windows(6).any(lower)),
    };
    let hex = run.len() >= 32 && run.bytes().all(|b| b.is_ascii_hexdigit());
    let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
    // AGE-SECRET-KEY-1…, base32; not a UUID.
    let armoured =
        run.len() >= 26 && run.chars().all(upper) && has(run, char::is_ascii_digit) && !is_uuid(run);
    is_issued(run) || looks_like_key(run) || hex || armoured || mixed
}

fn is_uuid(run: &str) -> bool {
    run.len() == 36 && Uuid::try_parse(run).is_ok()
}

/// What begins as its issuer has every token begin: AWS, Vault, GitHub, GitLab, Slack, Stripe, Doppler, 1Password.
fn is_issued(run: &str) -> bool {
    const BEGINNINGS: &[&str] = &[
        "AKIA",
        "ASIA",
        "hvs.",
        "hvb.",
        "hvr.",
        "ghp_",
        "gho_",
        "ghs_",
        "github_pat_",
        "glpat-",
        "xoxb-",
        "xoxp-",
        "sk_live_",
        "rk_live_",
        "dp.st.",
        "dp.pt.",
        "ops_",
        "eyJ",
    ];
    run.len() >= 16 && BEGINNINGS.iter().any(|begins| run.starts_with(begins))
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

    /// What is masked where a program says it is refused where it would be recorded.
    #[test]
    fn a_secret_among_the_arguments_is_found() {
        for secret in [
            "vault kv get -field=value --provider-token=hunter2 kv/k",
            "get --token s.4x7",
            "curl -H 'Authorization: Bearer abc' https://vault.example.com",
            "sh -c 'VAULT_TOKEN=hvs.CAESIJxS2kPq9mLw3Vb7Nn4Yt6Rr8Zz1 vault kv get kv/k'",
            "sh -c 'PGPASSWORD=hunter2 psql'",
            "get hvs.CAESIJxS2kPq9mLw3Vb7Nn4Yt6Rr8Zz1",
            "get hvs.abcdefghijklmnop",
            "get AKIAIOSFODNN7EXAMPLE",
            "get --id AKIAIOSFODNN7EXAMPLE",
            "get --identity=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N",
            "get --id-token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N",
            "get --video Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFi",
            "get --version Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFi",
            "get --provider b115f95a86f052185186bbb6f21adba4",
            "get wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "curl https://user:hunter2@vault.example.com/v1/kv",
            "curl https://vault.example.com/v1/kv?token=hunter2",
            "get aB3dE6gH9jK2mN5pQ8sT",
            "get -p test-key-for-encryption-32-ch!@#",
        ] {
            assert!(is_among(&shlex::split(secret).unwrap()), "{secret}");
        }
    }

    #[test]
    fn an_ordinary_command_has_none() {
        for ordinary in [
            "op read --no-newline op://dashtam/encryption-key/password",
            "op item get encryption-key --vault 0193b3b0-7d3e-7c1a-9a52-0d1e2f3a4b5c --fields password",
            "get --vault-id 0193B3B0-7D3E-7C1A-9A52-0D1E2F3A4B5C",
            "aws secretsmanager get-secret-value --secret-id arn:aws:secretsmanager:eu-central-1:123456789012:secret:dashtam-production-Ab3dEf --region eu-central-1 --version-id 0193b3b0-7d3e-7c1a-9a52-0d1e2f3a4b5c",
            "aws ssm get-parameter --name arn:aws:ssm:eu-central-1:123456789012:parameter/Dashtam2/EncryptionKey:17",
            "az keyvault secret show --vault-name dashtam --name DashtamEncryptionKey2 --version 0193b3b07d3e7c1a9a520d1e2f3a4b5c",
            "gcloud secrets versions access 17 --secret=projects/123456789012/secrets/DashtamEncryptionKey2",
            "gcloud --access-token-file=/run/secrets/token secrets versions access 1 --secret=DashtamProduction2EncryptionKey",
            "sh -c 'vault kv get -header \"X-Token=$TOKEN\" kv/k'",
            "sh -c 'VAULT_TOKEN=$(cat /run/secrets/token) vault kv get kv/k'",
            "kubectl get secret dashtam -o jsonpath={.data.encryption_key}",
            "curl --cacert /etc/ssl/ca.pem -H @/run/secrets/header https://vault.example.com:8200/v1/kv/data/dashtam",
            "lpass show --password dashtam/encryption-key",
            "cat /run/secrets/Dashtam2/Production/encryption_key",
            "cat /tmp/.tmpAbC12X/key",
            "infisical secrets get KEY --projectId=0193b3b0-7d3e-7c1a-9a52-0d1e2f3a4b5c --plain",
        ] {
            assert!(!is_among(&shlex::split(ordinary).unwrap()), "{ordinary}");
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
            "arn:aws:secretsmanager:eu-central-1:123456789012:secret:dashtam-production-Ab3dEf",
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
