//! `rekey init`: creates schema `rekey`, and shows the grants each role needs. `--print-sql` needs no database.

use clap::Args;
use clap::builder::BoolishValueParser;
use serde::Serialize;

use super::context::Context;
use crate::error::{Exit, Result};
use crate::jobs::preflight;
use crate::store::{Purpose, audit, grants, schema};

#[derive(Args)]
pub struct InitArgs {
    /// Print the schema and the grants as SQL, and do nothing
    #[arg(long, env = "REKEY_PRINT_SQL", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub print_sql: bool,
}

#[derive(Serialize)]
struct Initialized {
    schema: &'static str,
    created: bool,
    runner_role: &'static str,
    reader_role: &'static str,
    grants: String,
    next: &'static str,
    event_head: Option<String>,
}

/// Runs the command.
pub async fn run(args: InitArgs, context: &Context) -> Result<Exit> {
    if args.print_sql {
        print!("{}", sql());
        return Ok(Exit::Ok);
    }
    let connector = context.connector()?;
    let mut conn = connector.connect(Purpose::Control).await?;
    preflight::primary_only(&connector, &mut conn, "init").await?;
    let existed = schema::exists(&mut conn).await?;
    schema::ensure(&mut conn).await?;
    let done = Initialized {
        schema: "rekey",
        created: !existed,
        runner_role: grants::RUNNER,
        reader_role: grants::READER,
        grants: grants::sql(),
        next: "rekey plan",
        event_head: audit::head_line(&mut conn).await,
    };
    if context.json() {
        context.print_json(&done)?;
        return Ok(Exit::Ok);
    }
    println!(
        "schema rekey {}",
        if done.created { "is ready" } else { "was there already, and is up to date" }
    );
    println!("\nOther roles than its owner need these grants; nobody was granted anything:\n");
    print!("{}", done.grants);
    println!("\nnext: {}", done.next);
    if let Some(head) = &done.event_head {
        println!("audit chain head: {head}");
    }
    Ok(Exit::Ok)
}

fn sql() -> String {
    format!(
        "-- Schema rekey and the roles that use it, for: psql --set ON_ERROR_STOP=1 \"$DATABASE_URL\" -f FILE\n\
         -- Where the schema exists already, run the part below \"Roles\" only.\n\nBEGIN;\n{}\n-- Roles\n\n{}\nCOMMIT;\n",
        schema::sql(),
        grants::sql(),
    )
}
