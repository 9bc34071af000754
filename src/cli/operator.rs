//! Who acts where `--operator` names none. A pod's user is "uid 65532" and its name is chosen by a machine.

/// Where a command runs.
pub fn is_in_kubernetes() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// Who acts where `--operator` names none: the pod and its service account; the user who called sudo; the user's name.
pub fn of_this_process() -> String {
    let named = |variable| filled(std::env::var(variable).ok());
    if is_in_kubernetes() {
        let pod = named("HOSTNAME").unwrap_or_else(|| "pod".into());
        return match named("SERVICE_ACCOUNT") {
            Some(account) => format!("{pod} ({account})"),
            None => pod,
        };
    }
    let uid = rustix::process::getuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    named("SUDO_USER")
        .or_else(|| name_of(uid, &users))
        .or_else(|| named("USER"))
        .or_else(|| named("LOGNAME"))
        .unwrap_or_else(|| format!("uid {uid}"))
}

/// Blanks name nobody.
pub fn filled(name: Option<String>) -> Option<String> {
    name.filter(|name| !name.trim().is_empty())
}

fn name_of(uid: u32, users: &str) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_name_of_its_own() {
        let users = "root:x:0:0:root:/root:/bin/sh\n:x:7::\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(name_of(1000, users).as_deref(), Some("alice"));
        assert_eq!((name_of(7, users), name_of(65532, users)), (None, None));
    }
}
