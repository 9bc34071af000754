//! Prints the people to tell after a compromise, as they come: a JSON document, or lines for a spreadsheet.

use std::io::{self, BufWriter, Stdout, Write as _};

use serde_json::json;

use crate::cli::last_lines;
use crate::error::{Error, Exit, Result};
use crate::jobs::report::{Exposed, Listing, Sums};
use crate::pages::csv;
use crate::store::report::Affected;

/// How they are printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One object, or an array of them where there are several rotations.
    Json,
    /// A line for each connection, below one with the names of the columns.
    Csv,
}

/// Prints to stdout.
pub struct Printed {
    out: BufWriter<Stdout>,
    form: Form,
    /// Rotations still to come, and whether there are several.
    left: usize,
    several: bool,
    /// Lists and connections so far: what comes between two.
    lists: usize,
    connections: usize,
    head: Option<String>,
}

impl Printed {
    /// For so many rotations.
    pub fn new(form: Form, rotations: usize) -> Printed {
        let (out, several) = (BufWriter::new(io::stdout()), rotations > 1);
        Printed { out, form, left: rotations, several, lists: 0, connections: 0, head: None }
    }

    /// The last of it.
    pub fn finish(mut self) -> Result<()> {
        self.out.flush().map_err(wrong)?;
        if let (Form::Json, false, Some(head)) = (self.form, self.several, &self.head) {
            last_lines::witness(head);
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.out.write_all(text.as_bytes()).map_err(wrong)
    }
}

fn wrong(e: io::Error) -> Error {
    Error::new(Exit::Internal, format!("can't print the result: {e}"))
}

impl Listing for Printed {
    fn begin(&mut self, of: &Exposed) -> Result<()> {
        self.lists += 1;
        self.connections = 0;
        match self.form {
            Form::Csv if self.lists == 1 => self.write(csv::HEADER),
            Form::Csv => Ok(()),
            Form::Json => {
                let before = match (self.several, self.lists) {
                    (false, _) => "",
                    (true, 1) => "[\n",
                    (true, _) => ",\n",
                };
                let (compromised, complete) = (of.compromised, of.complete);
                self.write(&format!(
                    "{before}{{\n  \"rotation\": \"{}\",\n  \"compromised\": {compromised},\n  \"complete\": {complete},\n  \"affected\": [",
                    of.rotation
                ))
            }
        }
    }

    fn connection(&mut self, of: &Exposed, who: &Affected) -> Result<()> {
        self.connections += 1;
        match self.form {
            Form::Csv => self.write(&csv::line(of, who)),
            Form::Json => {
                let comma = if self.connections > 1 { "," } else { "" };
                self.write(&format!("{comma}\n    {}", json!(who)))
            }
        }
    }

    fn end(&mut self, _: &Exposed, sums: &Sums) -> Result<()> {
        self.left = self.left.saturating_sub(1);
        self.head.clone_from(&sums.event_head);
        if self.form == Form::Csv {
            return Ok(());
        }
        let after = if self.several && self.left == 0 {
            "\n]\n"
        } else if self.several {
            ""
        } else {
            "\n"
        };
        self.write(&format!(
            "\n  ],\n  \"users\": {},\n  \"providers\": {},\n  \"event_head\": {}\n}}{after}",
            sums.users,
            json!(sums.providers),
            json!(sums.event_head)
        ))
    }
}
