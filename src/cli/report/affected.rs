//! Prints the people to tell after a compromise, as they come: a JSON document, or lines for a spreadsheet.
//!
//! The document has one shape, however many rotations and rows there are: the list, which may be long and is therefore
//! printed once, at the top level, and behind it the result, with the facts of each rotation.

use std::io::{self, BufWriter, Stdout, Write as _};

use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::cli::context::Context;
use crate::cli::envelope::{Document, wrong};
use crate::cli::last_lines;
use crate::cli::list::List;
use crate::error::{Exit, Result};
use crate::jobs::report::{Exposed, Listing, Sums};
use crate::pages::csv;
use crate::store::report::Affected;

/// A line for each connection, below one with the names of the columns.
pub struct Csv {
    out: BufWriter<Stdout>,
    begun: bool,
}

impl Csv {
    /// Nothing is printed yet.
    pub fn new() -> Csv {
        Csv { out: BufWriter::new(io::stdout()), begun: false }
    }

    /// The last of it.
    pub fn finish(mut self) -> Result<()> {
        self.out.flush().map_err(wrong)
    }
}

impl Listing for Csv {
    fn begin(&mut self, _: &Exposed) -> Result<()> {
        match std::mem::replace(&mut self.begun, true) {
            true => Ok(()),
            false => self.out.write_all(csv::HEADER.as_bytes()).map_err(wrong),
        }
    }

    fn connection(&mut self, of: &Exposed, who: &Affected) -> Result<()> {
        self.out.write_all(csv::line(of, who).as_bytes()).map_err(wrong)
    }

    fn end(&mut self, _: &Exposed, _: &Sums) -> Result<()> {
        Ok(())
    }
}

/// The document.
pub struct Json<'a> {
    context: &'a Context,
    list: Option<List>,
    /// Connections of the rotation that is being listed.
    connections: u64,
    rotations: Vec<Facts>,
    head: Option<String>,
}

/// What a rotation's list came to.
#[derive(Serialize)]
struct Facts {
    rotation: Uuid,
    compromised: bool,
    complete: bool,
    connections: u64,
    users: usize,
    providers: serde_json::Value,
}

#[derive(Serialize)]
struct Entry<'a> {
    rotation: Uuid,
    #[serde(flatten)]
    who: &'a Affected,
}

impl<'a> Json<'a> {
    /// Nothing is printed yet.
    pub fn new(context: &'a Context) -> Json<'a> {
        Json { context, list: None, connections: 0, rotations: Vec::new(), head: None }
    }

    /// The last of it. An error behind the first entries ends the document that was begun.
    pub fn finish(self, listed: Result<()>) -> Result<Exit> {
        let (list, error) = match (self.list, listed) {
            (Some(list), listed) => (list, listed.err()),
            (None, Err(e)) => return Err(e),
            (None, Ok(())) => return Ok(Exit::Ok),
        };
        let result = json!({ "rotations": self.rotations, "event_head": self.head });
        // As before there was an envelope: of the one rotation, or of the latest of them.
        let latest = serde_json::to_value(self.rotations.last()).map_err(wrong)?;
        let document = match error {
            None => Document::new(Exit::Ok, &result)?,
            Some(e) => Document::new(self.context.fail_beside_result(&e), &result)?.because(&e),
        };
        let document = document.and(latest);
        list.end(&document)?;
        document.event_head().map(last_lines::witness);
        Ok(document.exit())
    }

    fn list(&mut self) -> Result<&mut List> {
        let list = match self.list.take() {
            Some(list) => list,
            None => List::begin(self.context.command(), "affected")?,
        };
        Ok(self.list.insert(list))
    }
}

impl Listing for Json<'_> {
    fn begin(&mut self, _: &Exposed) -> Result<()> {
        self.connections = 0;
        self.list().map(drop)
    }

    fn connection(&mut self, of: &Exposed, who: &Affected) -> Result<()> {
        self.connections += 1;
        self.list()?.entry(&Entry { rotation: of.rotation, who })
    }

    fn end(&mut self, of: &Exposed, sums: &Sums) -> Result<()> {
        self.head.clone_from(&sums.event_head);
        self.rotations.push(Facts {
            rotation: of.rotation,
            compromised: of.compromised,
            complete: of.complete,
            connections: self.connections,
            users: sums.users,
            providers: json!(sums.providers),
        });
        Ok(())
    }
}
