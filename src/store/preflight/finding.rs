//! One finding, and the table of all there are: their names are what `--allow` takes, so they are public.

use serde::Serialize;

use crate::error::{Error, Exit};

macro_rules! kinds {
    ($($name:ident = $word:literal, $allow:literal, $meaning:literal;)*) => {
        /// What was found. The word of each is its name for `--allow`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $(#[doc = $meaning] $name),* }

        impl Kind {
            /// Its public name.
            pub const fn name(self) -> &'static str { match self { $(Kind::$name => $word),* } }
            /// Whether `--allow` may let it pass.
            pub const fn may_be_allowed(self) -> bool { match self { $(Kind::$name => $allow),* } }
        }

        /// Every finding: its name, whether `--allow` may let it pass, and what it means.
        pub const FINDINGS: &[(&str, bool, &str)] = &[$(($word, $allow, $meaning)),*];
    };
}

kinds! {
    ServerVersion = "server-version", false, "PostgreSQL is older than 14";
    InRecovery = "in-recovery", false, "the server is a standby and takes no writes";
    Pooling = "pooling", false, "a pooler in transaction mode stands between rekey and the server";
    Tls = "tls", true, "the connection is not encrypted and leaves this machine";
    Durability = "durability", true, "fsync or full_page_writes is off";
    SyncStandby = "sync-standby", true, "commits wait for synchronous standbys";
    Isolation = "isolation", true, "the role or database has another default isolation or is read-only";
    Table = "table", false, "provider_connections is missing, or not an ordinary table";
    Columns = "columns", false, "a column is missing, of another type, or id is not the primary key";
    Unlogged = "unlogged", true, "the table is not crash-safe";
    Privileges = "privileges", false, "the role lacks a privilege";
    Monitoring = "monitoring", true, "the role may not see what the throttle watches";
    EmptyTable = "empty-table", true, "no row is visible";
    RowSecurity = "row-security", false, "row-level security hides rows from this role";
    Estimates = "estimates", true, "the planner knows nothing about the table yet";
    UserTriggers = "user-triggers", true, "triggers fire on every row that is re-encrypted";
    Rules = "rules", false, "a rule rewrites updates of the table";
    ReplicaIdentity = "replica-identity", false, "the table is published without a replica identity: updates fail";
    Publication = "publication", true, "logical replication carries every re-encrypted row";
    IndexedColumn = "indexed-column", true, "an index covers the credential column";
    OldSnapshot = "old-snapshot", true, "something holds back the horizon: dead rows cannot be pruned";
    ReplicaLag = "replica-lag", true, "a replica lags";
    Slots = "slots", true, "a replication slot keeps WAL and nobody reads it";
    WalArchive = "wal-archive", true, "archiving WAL fails";
    Disk = "disk", true, "the disk may be too small for the growth, or cannot be asked";
    Keys = "keys", false, "a key is missing, malformed, or not this rotation's";
    WrongKey = "wrong-key", false, "the keys do not open a sample of the rows";
    FirstBatch = "first-batch", true, "most of the first rows open with neither key: a wrong key, or rows nobody can read any more";
    IvLimit = "iv-limit", true, "the new key nears the 2^32 encryptions with random IVs of NIST SP 800-38D";
    NotDurable = "not-durable", true, "the new key is kept where it may be lost";
    WeakKey = "weak-key", true, "a key is published or weak";
    AutomaticRotation = "automatic-rotation", true, "the secret is rotated automatically, without re-encryption";
    SharedKey = "shared-key", true, "another database's rotation needs the same secrets";
    ActiveRotation = "active-rotation", true, "a rotation is under way";
}

/// What a finding does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Stops the command with 3.
    RefuseKey,
    /// Stops the command with 4.
    Refuse,
    /// Costs something.
    Warn,
    /// Good to know.
    Note,
}

/// Something that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Its name for `--allow`.
    pub name: &'static str,
    /// What it does.
    pub severity: Severity,
    /// What was found, naming it.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// The operator lets it pass.
    pub allowed: bool,
    #[serde(skip)]
    kind: Kind,
}

impl Finding {
    fn new(kind: Kind, severity: Severity, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding {
            name: kind.name(),
            severity,
            message: message.into(),
            remedy: remedy.into(),
            allowed: false,
            kind,
        }
    }

    /// Stops the command with 4 unless allowed.
    pub fn refuse(kind: Kind, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::new(kind, Severity::Refuse, message, remedy)
    }

    /// Stops the command with 3.
    pub fn refuse_key(kind: Kind, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::new(kind, Severity::RefuseKey, message, remedy)
    }

    /// Costs something.
    pub fn warn(kind: Kind, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::new(kind, Severity::Warn, message, remedy)
    }

    /// Good to know.
    pub fn note(kind: Kind, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::new(kind, Severity::Note, message, remedy)
    }

    /// Whether it stops the command.
    pub fn refuses(&self) -> bool {
        !self.allowed && matches!(self.severity, Severity::Refuse | Severity::RefuseKey)
    }

    /// Whether `--allow` could let it pass.
    pub fn may_be_allowed(&self) -> bool {
        self.kind.may_be_allowed()
    }
}

/// The findings named by `--allow`, all known.
#[derive(Clone, Debug, Default)]
pub struct Allowed(Vec<String>);

impl Allowed {
    /// Refuses a name that is none, or that nobody may allow, with exit 2.
    pub fn parse(names: &[String]) -> Result<Allowed, Error> {
        let names: Vec<String> = names.iter().map(|name| name.trim().to_owned()).collect();
        for name in &names {
            match FINDINGS.iter().find(|(known, ..)| known == name) {
                Some((_, true, _)) => {}
                Some((_, false, meaning)) => {
                    return Err(Error::new(
                        Exit::Usage,
                        format!("--allow {name}: this cannot be let pass: {meaning}"),
                    )
                    .hint("rekey plan names the remedy"));
                }
                None => {
                    let known: Vec<&str> =
                        FINDINGS.iter().filter(|(_, may, _)| *may).map(|(known, ..)| *known).collect();
                    // A word like a finding's may be one that is misspelt; anything else may be a key.
                    let like_one =
                        name.len() < 24 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
                    let name = if like_one { name } else { "(not shown)" };
                    return Err(Error::new(Exit::Usage, format!("--allow {name}: there is no such finding"))
                        .hint(format!("the findings that may be let pass are {}", known.join(", "))));
                }
            }
        }
        Ok(Allowed(names))
    }

    /// The names as given, for the record.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether a finding of this kind is let pass.
    pub fn includes(&self, kind: Kind) -> bool {
        kind.may_be_allowed() && self.0.iter().any(|name| name == kind.name())
    }

    /// Marks what is let pass, and puts what matters most first.
    pub(super) fn judge(&self, mut findings: Vec<Finding>) -> Vec<Finding> {
        for finding in &mut findings {
            finding.allowed = self.includes(finding.kind);
        }
        findings.sort_by_key(|finding| finding.severity);
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_findings_can_be_allowed() {
        let exit = |name: &str| Allowed::parse(&[name.to_owned()]).map(drop).map_err(|e| e.exit);
        assert_eq!(exit("empty-table"), Ok(()));
        assert_eq!(exit("everything"), Err(Exit::Usage));
        assert_eq!(exit("wrong-key"), Err(Exit::Usage));
    }

    #[test]
    fn an_allowed_finding_refuses_no_more_and_refusals_come_first() {
        let allowed = Allowed::parse(&["user-triggers".to_owned()]).unwrap_or_default();
        let findings = allowed.judge(vec![
            Finding::warn(Kind::Tls, "", ""),
            Finding::refuse(Kind::UserTriggers, "", ""),
            Finding::refuse_key(Kind::WrongKey, "", ""),
        ]);
        let told: Vec<_> = findings.iter().map(|f| (f.name, f.refuses())).collect();
        assert_eq!(told, [("wrong-key", true), ("user-triggers", false), ("tls", false)]);
    }
}
