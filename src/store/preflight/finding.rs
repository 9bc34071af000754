//! One finding, and the table of all there are: their names are what `--allow` takes, so they are public. What is said
//! of each stands beside its check.

use serde::Serialize;

use crate::error::{Error, Exit};

/// What there is to know of a finding: everything that is said of it wherever it comes up. It stands in the file of the
/// check that makes it.
#[derive(Debug)]
pub struct About {
    /// Its public name, which `--allow` takes.
    pub name: &'static str,
    /// Whether `--allow` may let it pass.
    pub may_be_allowed: bool,
    /// What it means.
    pub meaning: &'static str,
    /// What to do about it. The finding itself says it with names.
    pub remedy: &'static str,
}

macro_rules! kinds {
    ($($name:ident = $file:ident::$about:ident;)*) => {
        /// What was found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $(#[doc = concat!("Made in `", stringify!($file), "`.")] $name),* }

        impl Kind {
            /// What there is to know of it.
            pub const fn about(self) -> &'static About { match self { $(Kind::$name => &super::$file::$about),* } }
        }

        /// Every finding.
        pub const FINDINGS: &[&About] = &[$(&super::$file::$about),*];
    };
}

// To add a finding: write its `About` beside its check, add a line here, and call the check in `look` (mod.rs).
kinds! {
    ServerVersion = server::VERSION;
    InRecovery = server::RECOVERY;
    Pooling = server::POOLING;
    Tls = server::TLS;
    Durability = server::DURABILITY;
    SyncStandby = server::SYNC_STANDBY;
    Isolation = server::ISOLATION;
    Table = shape::TABLE_KIND;
    Columns = shape::COLUMNS;
    Unlogged = shape::UNLOGGED;
    Privileges = privileges::PRIVILEGES;
    Monitoring = horizon::MONITORING;
    Ledger = ledger::LEDGER;
    EventTrigger = ledger::EVENT_TRIGGERS;
    EmptyTable = shape::EMPTY;
    RowSecurity = shape::ROW_SECURITY;
    Estimates = shape::ESTIMATES;
    UserTriggers = triggers::TRIGGERS;
    TableCopier = copiers::COPIER;
    Rules = rules::RULES;
    ReplicaIdentity = replica_identity::IDENTITY;
    Publication = publications::PUBLICATION;
    AllTables = publications::ALL_TABLES;
    IndexedColumn = indexes::INDEXED;
    RejectedRows = rejected::REJECTED;
    OtherCredentials = other_columns::OTHERS;
    OldSnapshot = horizon::OLD_SNAPSHOT;
    ReplicaLag = replication::LAG;
    Slots = replication::SLOTS;
    WalArchive = replication::ARCHIVE;
    Disk = limits::DISK;
    Keys = sample::KEYS;
    WrongKey = sample::WRONG_KEY;
    FirstBatch = sample::FIRST_BATCH;
    IvLimit = limits::IVS;
    NotDurable = sources::NOT_DURABLE;
    WeakKey = sources::WEAK;
    AutomaticRotation = sources::AUTOMATIC_ROTATION;
    SharedKey = sources::SHARED;
    ReplicaSecret = sources::REPLICA_SECRET;
    OpenFile = sources::OPEN_FILE;
    ActiveRotation = active::ACTIVE;
    OtherDatabase = other_database::OTHER;
}

impl Kind {
    /// Its public name.
    pub const fn name(self) -> &'static str {
        self.about().name
    }

    /// Whether `--allow` may let it pass.
    pub const fn may_be_allowed(self) -> bool {
        self.about().may_be_allowed
    }
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

    /// What was found.
    pub fn kind(&self) -> Kind {
        self.kind
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
    /// Refuses an unknown name, or one that can't be allowed, with exit 2.
    pub fn parse(names: &[String]) -> Result<Allowed, Error> {
        let names: Vec<String> = names.iter().map(|name| name.trim().to_owned()).collect();
        for name in &names {
            match FINDINGS.iter().find(|about| about.name == name) {
                Some(about) if about.may_be_allowed => {}
                Some(about) => {
                    return Err(Error::new(
                        Exit::Usage,
                        format!("--allow {name}: this finding can't be allowed: {}", about.meaning),
                    )
                    .hint("Run `rekey plan` to see the remedy"));
                }
                None => {
                    let known: Vec<&str> = FINDINGS
                        .iter()
                        .filter(|about| about.may_be_allowed)
                        .map(|about| about.name)
                        .collect();
                    // A word like a finding's may be one that is misspelt; anything else may be a key.
                    let like_one =
                        name.len() < 24 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
                    let name = if like_one { name } else { "(not shown)" };
                    return Err(Error::new(Exit::Usage, format!("--allow {name}: no finding has this name"))
                        .hint(format!("These findings can be allowed: {}", known.join(", "))));
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
