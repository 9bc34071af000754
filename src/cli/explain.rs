//! `rekey explain NAME`: what an exit code, a finding, a state or a throttle reason means. Contacts nothing.

use clap::Args;

use super::context::Context;
use super::envelope::Document;
use crate::error::{Exit, Result};
use crate::jobs::explain::{self, Explanation};

#[derive(Args)]
pub struct ExplainArgs {
    /// Exit code, or the name of a finding, state or throttle reason [default: list them all]
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Runs the command.
pub fn run(args: &ExplainArgs, context: &Context) -> Result<Exit> {
    match &args.name {
        Some(name) => {
            let explanation = explain::explain(name)?;
            if context.json() {
                context.print_json(&Document::new(Exit::Ok, &explanation)?.next_words(&explanation.next))?;
            } else {
                text(&explanation);
            }
        }
        None if context.json() => context.print_json(&Document::new(Exit::Ok, &explain::all())?)?,
        None => list(&explain::all()),
    }
    Ok(Exit::Ok)
}

fn text(e: &Explanation) {
    println!("{}: {}", e.name, e.kind.as_str());
    println!();
    println!("  {:<9}{}", "meaning", e.meaning);
    println!("  {:<9}{}", "data", e.data);
    for (i, step) in e.next.iter().enumerate() {
        println!("  {:<9}{step}", if i == 0 { "next" } else { "" });
    }
}

fn list(all: &[Explanation]) {
    let mut kind = None;
    for e in all {
        if kind.replace(e.kind) != Some(e.kind) {
            println!("{}s", e.kind.as_str());
        }
        println!("  {:<23}{}", e.name, e.meaning);
    }
}
