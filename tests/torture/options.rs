//! The command line: `--kills N --seed S --rows N`, or `--seed S --plan N`. What `cargo test` says to its own tests is
//! understood, too.

/// What is asked for.
pub struct Options {
    pub kills: u64,
    pub seed: u64,
    pub rows: u64,
    /// So many blows are listed, and none is struck.
    pub plan: Option<u64>,
}

impl Options {
    /// A short form without arguments; nothing where `cargo test` asks for other tests by name, or for a list.
    pub fn parse() -> Option<Options> {
        let mut options = Options { kills: 25, seed: 1, rows: 2000, plan: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || -> u64 {
                let given = arguments.next().and_then(|text| text.parse().ok());
                given.unwrap_or_else(|| panic!("{argument} takes a number"))
            };
            match argument.as_str() {
                "--kills" => options.kills = number(),
                "--seed" => options.seed = number(),
                "--rows" => options.rows = number(),
                "--plan" => options.plan = Some(number()),
                "--list" => return None,
                "--test-threads" => drop(number()),
                name if !name.starts_with('-') && !"torture".contains(name) => return None,
                _ => {}
            }
        }
        Some(options)
    }
}
