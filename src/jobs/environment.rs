//! Where rekey runs, which decides how weak a new key may be. Not read here: `--environment` names it.

/// The kind of installation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Environment {
    /// A developer's machine.
    Development,
    /// Automated tests: even a published key may be used.
    Testing,
    /// Continuous integration.
    Ci,
    /// Like production, with other data.
    Staging,
    /// The default: no weak key.
    #[default]
    Production,
}

impl Environment {
    /// Every value.
    pub const ALL: &[Environment] = &[
        Environment::Development,
        Environment::Testing,
        Environment::Ci,
        Environment::Staging,
        Environment::Production,
    ];

    /// Its name on the command line and in the audit trail.
    pub const fn as_str(self) -> &'static str {
        match self {
            Environment::Development => "development",
            Environment::Testing => "testing",
            Environment::Ci => "ci",
            Environment::Staging => "staging",
            Environment::Production => "production",
        }
    }
}
