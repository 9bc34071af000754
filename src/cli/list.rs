//! A document with a list that may be too long to be held in memory: each entry is printed as it comes, on a line of its
//! own, and the envelope's last fields come after it.

use std::io::{self, BufWriter, Stdout, Write as _};

use serde::Serialize;

use super::envelope::{Document, beginning, wrong};
use crate::error::Result;
use crate::text::json;
use crate::text::printable::printable;

/// A list being printed to stdout.
pub struct List {
    out: BufWriter<Stdout>,
    entries: u64,
    /// The reader has seen enough.
    left: bool,
}

impl List {
    /// Begins the document of this command and, in its field `name`, the list.
    pub fn begin(command: Option<&str>, name: &str) -> Result<List> {
        let mut list = List { out: BufWriter::new(io::stdout()), entries: 0, left: false };
        list.write(&format!("{},\"{name}\":[", beginning(command)?))?;
        Ok(list)
    }

    /// One more entry.
    pub fn entry(&mut self, entry: &impl Serialize) -> Result<()> {
        let comma = if self.entries > 0 { "," } else { "" };
        self.entries += 1;
        let entry = json::compact(entry).map_err(wrong)?;
        self.write(&format!("{comma}\n{}", printable(&entry)))
    }

    /// Ends the list and the document.
    pub fn end(mut self, document: &Document) -> Result<()> {
        let line_end = if self.entries > 0 { "\n" } else { "" };
        self.write(&format!("{line_end}],{}\n", document.rest()?))?;
        let done = self.out.flush();
        self.unless_left(done)
    }

    fn write(&mut self, text: &str) -> Result<()> {
        if self.left {
            return Ok(());
        }
        let done = self.out.write_all(text.as_bytes());
        self.unless_left(done)
    }

    fn unless_left(&mut self, done: io::Result<()>) -> Result<()> {
        match done {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.left = true,
            done => done.map_err(wrong)?,
        }
        Ok(())
    }
}
