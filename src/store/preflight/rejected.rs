//! Rows whose update a constraint would reject: one that was added NOT VALID is held against a row as soon as that row is
//! written, and so is one whose function has changed since.

use sqlx::PgConnection;
use sqlx::postgres::types::Oid;

use super::finding::{About, Finding, Kind};
use crate::store::TABLE;
use crate::store::error::StoreError;
use crate::store::statement::{Query, row, statements};

pub(super) const REJECTED: About = About {
    name: "rejected-rows",
    may_be_allowed: true,
    meaning: "A constraint of the table rejects the update of existing rows, which would be quarantined",
    remedy: "Repair the rows, or replace the constraint during the rotation",
};

const OP: &str = "count the rows that a constraint rejects";

struct Constraint {
    name: String,
    /// As SQL, true or NULL of a row that may be written.
    expression: String,
    /// Its rows were checked once, when it was added.
    validated: bool,
}

row!(Constraint { name, expression, validated });

statements! {
    /// Those that rows of the table may break: not validated, or by a function that somebody may have changed. From
    /// PostgreSQL 18 on a constraint may be unenforced, and NOT NULL may be not valid.
    fn doubtful(table: Oid) -> All<Constraint> during "look for constraints":
        "SELECT quote_ident(c.conname) AS name, c.convalidated AS validated, CASE c.contype \
         WHEN 'c' THEN pg_get_expr(c.conbin, c.conrelid) \
         ELSE (SELECT quote_ident(a.attname) || ' IS NOT NULL' FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = c.conrelid AND a.attnum = c.conkey[1]) END AS expression \
         FROM pg_catalog.pg_constraint c WHERE c.conrelid = $1 AND c.contype IN ('c', 'n') \
         AND to_jsonb(c)->>'conenforced' IS DISTINCT FROM 'false' \
         AND (NOT c.convalidated OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = c.oid \
         AND d.classid = 'pg_catalog.pg_constraint'::regclass AND d.refclassid = 'pg_catalog.pg_proc'::regclass)) \
         ORDER BY c.conname";
}

/// Counts them. `None` where that took too long, or a constraint could not be asked.
pub(super) async fn look(
    conn: &mut PgConnection,
    table: Oid,
    findings: &mut Vec<Finding>,
) -> Result<Option<u64>, StoreError> {
    let constraints = doubtful(conn, table).await?;
    if constraints.is_empty() {
        return Ok(Some(0));
    }
    let expressions: Vec<&str> = constraints.iter().map(|c| c.expression.as_str()).collect();
    let counts = match count(conn, &expressions).await {
        Ok(counts) => counts,
        // Its own time limit, or an error that the constraint's function raises.
        Err(error) if error.sqlstate().is_some() => {
            findings.push(Finding::warn(
                Kind::RejectedRows,
                format!(
                    "Couldn't count the rows that constraint {} may reject: {error}",
                    constraints.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")
                ),
                format!("SELECT count(*) FROM {TABLE} WHERE NOT ({})", expressions.join(" AND ")),
            ));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    for (constraint, rows) in constraints.iter().zip(&counts) {
        if *rows > 0 {
            findings.push(tell(constraint, *rows));
        }
    }
    Ok(Some(counts.iter().sum()))
}

/// In one scan; each row is counted for the first constraint that it breaks.
async fn count(conn: &mut PgConnection, expressions: &[&str]) -> Result<Vec<u64>, StoreError> {
    let mut before = String::new();
    let mut columns = Vec::new();
    for expression in expressions {
        columns.push(format!("(count(*) FILTER (WHERE {before}({expression}) IS FALSE))::int8"));
        before.push_str(&format!("({expression}) IS NOT FALSE AND "));
    }
    let columns = columns.join(", ");
    let sql = format!("SELECT ARRAY[{columns}] FROM {TABLE} WHERE encrypted_credentials IS NOT NULL");
    // A table has few such constraints, and a process looks at them once.
    let counts = Query::<Vec<i64>>::new(OP, sql.leak()).one(conn).await?;
    Ok(counts.iter().map(|count| count.unsigned_abs()).collect())
}

fn tell(constraint: &Constraint, rows: u64) -> Finding {
    let Constraint { name, expression, validated } = constraint;
    let why = if *validated { "whose function has changed" } else { "added NOT VALID" };
    Finding::warn(
        Kind::RejectedRows,
        format!("Constraint {name}, {why}, rejects the update of {rows} rows, which would be quarantined"),
        format!(
            "repair them (SELECT id FROM {TABLE} WHERE NOT ({expression})), or drop the constraint for the time of the rotation"
        ),
    )
}
