//! `rekey init`: arguments, and what is printed. `--print-sql` needs no database.

use clap::Args;
use clap::builder::BoolishValueParser;
use serde_json::json;

use super::context::Context;
use super::envelope::Document;
use super::last_lines::witness;
use super::variables::naming;
use crate::error::{Exit, Result};
use crate::jobs::init;
use crate::store::grants;
use crate::store::preflight::Allowed;

#[derive(Args)]
pub struct InitArgs {
    /// Print the SQL for the schema and the grants; change nothing
    #[arg(long, env = "REKEY_PRINT_SQL", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub print_sql: bool,
    /// Allow a refused finding by name; repeatable
    #[arg(long, env = "REKEY_ALLOW", hide_env_values = true, value_name = "FINDING", value_delimiter = ',')]
    pub allow: Vec<String>,
}

/// Runs the command.
pub async fn run(args: InitArgs, context: &Context) -> Result<Exit> {
    if args.print_sql {
        let sql = init::sql();
        if context.json() {
            context.print_json(&Document::new(Exit::Ok, &json!({ "schema": "rekey", "sql": sql }))?)?;
        } else {
            print!("{sql}");
        }
        return Ok(Exit::Ok);
    }
    let done = init::init(context, &naming("--allow", Allowed::parse(&args.allow))?).await?;
    if context.json() {
        let result = json!({
            "schema": "rekey", "created": done.created, "runner_role": grants::RUNNER, "reader_role": grants::READER,
            "grants": grants::sql(), "event_head": done.event_head,
        });
        context.print_json(&Document::new(Exit::Ok, &result)?.next(&done.next))?;
        return Ok(Exit::Ok);
    }
    // All of it is SQL, for `psql -f`.
    let is = if done.created { "was created" } else { "already existed and is up to date" };
    println!("-- schema rekey {is}");
    println!("-- Other roles than the owner need these grants. rekey did not grant anything:");
    print!("{}", grants::sql());
    for (i, step) in done.next.iter().enumerate() {
        println!("-- {} {step}", if i == 0 { "next:" } else { "     " });
    }
    if let Some(head) = &done.event_head {
        println!("-- audit chain head: {head}");
        witness(head);
    }
    Ok(Exit::Ok)
}
