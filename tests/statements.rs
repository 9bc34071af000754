//! Every statement of rekey's, prepared on each supported major version of PostgreSQL: what the server says of its
//! parameters and columns is held against what is bound and decoded. Nothing is executed.
//!
//! A version that is not to be had is skipped, said aloud.

#[path = "support/mod.rs"]
mod support;

use rekey::store::{Column, Declaration, schema, statements};
use sqlx::postgres::{PgColumn, PgConnectOptions, PgStatement, PgTypeInfo};
use sqlx::{
    Column as _, ConnectOptions as _, Either, Executor as _, PgConnection, SqlSafeStr as _, Statement as _,
    Type, TypeInfo as _,
};
use support::programs::Programs;
use support::{Cluster, Db, block_on};

fn all_hold_on(major: u32) {
    let Some(programs) = Programs::of(major) else {
        support::skipped(format_args!("no PostgreSQL {major} (./scripts/test installs it)"));
        return;
    };
    let cluster = Cluster::of(&programs.bin, "");
    let db = Db::on(&cluster);
    let wrong = block_on(async {
        let mut conn = connect(&db).await;
        let mut wrong = Vec::new();
        for statement in statements().filter(|statement| statement.versions.contains(&major)) {
            let found = examine(&mut conn, statement).await;
            wrong.extend(found.into_iter().map(|what| format!("{}: {what}", statement.name)));
        }
        wrong
    });
    assert!(wrong.is_empty(), "on PostgreSQL {major}:\n{}", wrong.join("\n"));
}

/// A connection to a database with rekey's tables. It keeps no prepared statements: each text is prepared twice, with the
/// types that are bound and without.
async fn connect(db: &Db) -> PgConnection {
    let options: PgConnectOptions = db.url.parse().unwrap();
    let mut conn = options.statement_cache_capacity(0).connect().await.unwrap();
    schema::ensure(&mut conn).await.unwrap();
    conn
}

async fn examine(conn: &mut PgConnection, statement: &Declaration) -> Vec<String> {
    let bound = (statement.parameters)();
    let prepared = match conn.prepare_with(statement.sql.into_sql_str(), &bound).await {
        Ok(prepared) => prepared,
        Err(error) => return vec![error.to_string()],
    };
    let mut wrong = Vec::new();
    if parameters(&prepared).len() != bound.len() {
        wrong.push(format!("{} are bound, and it takes {}", bound.len(), parameters(&prepared).len()));
    }
    // What the server would take by itself, where it can tell.
    if let Ok(inferred) = conn.prepare_with(statement.sql.into_sql_str(), &[]).await {
        for (at, (takes, bound)) in parameters(&inferred).iter().zip(&bound).enumerate() {
            if !same(takes, bound) {
                wrong.push(format!("${} is {}, and {} is bound", at + 1, takes.name(), bound.name()));
            }
        }
    }
    let decoded = (statement.columns)();
    for (at, decoded) in decoded.iter().enumerate() {
        let found = match decoded.name {
            Some(name) => prepared.columns().iter().find(|column| column.name() == name),
            None => prepared.columns().get(at),
        };
        let label = decoded.name.map_or_else(|| format!("column {at}"), |name| format!("column {name}"));
        match found {
            None => wrong.push(format!("there is no {label}")),
            Some(found) => {
                let what = fits(conn, found, decoded).await;
                wrong.extend(what.map(|what| format!("{label} {what}")));
            }
        }
    }
    if !decoded.is_empty() && decoded.len() != prepared.columns().len() {
        wrong.push(format!("{} columns are decoded of {}", decoded.len(), prepared.columns().len()));
    }
    wrong
}

fn parameters(prepared: &PgStatement) -> &[PgTypeInfo] {
    match prepared.parameters() {
        Some(Either::Left(types)) => types,
        _ => &[],
    }
}

async fn fits(conn: &mut PgConnection, found: &PgColumn, decoded: &Column) -> Option<String> {
    if !(decoded.takes)(found.type_info()) || !same(found.type_info(), &decoded.type_info) {
        return Some(format!("is {}, decoded as {}", found.type_info().name(), decoded.type_info.name()));
    }
    // Of expressions and of views the server cannot tell.
    let (Some(table), Some(attribute)) = (found.relation_id(), found.relation_attribute_no()) else {
        return None;
    };
    let can_be_null: bool = sqlx::query_scalar(
        "SELECT NOT attnotnull AND relkind = 'r' FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
         WHERE attrelid = $1 AND attnum = $2",
    )
    .bind(table)
    .bind(attribute)
    .fetch_one(conn)
    .await
    .unwrap();
    (can_be_null && !decoded.nullable).then(|| "can be NULL, and the decoder does not take that".to_owned())
}

/// The same type, or both of them text.
fn same(one: &PgTypeInfo, other: &PgTypeInfo) -> bool {
    let text = |ty: &PgTypeInfo| String::compatible(ty);
    one == other || text(one) && text(other)
}

#[test]
fn a_wrong_declaration_is_found() {
    fn text(name: &'static str) -> Column {
        Column {
            name: Some(name),
            type_info: <String as Type<_>>::type_info(),
            takes: String::compatible,
            nullable: false,
        }
    }
    fn number() -> PgTypeInfo {
        <i64 as Type<_>>::type_info()
    }
    let db = Db::new();
    let found = |sql, parameters: fn() -> _, columns: fn() -> _| {
        let wrong = Declaration { name: "", op: "", sql, versions: 0..99, parameters, columns };
        block_on(async { examine(&mut connect(&db).await, &wrong).await.join("; ") })
    };
    let rotation = "SELECT state, reason FROM rekey.rotations WHERE external = $1";
    let flag = || vec![<bool as Type<_>>::type_info()];
    assert_eq!(found(rotation, flag, Vec::new), "", "nobody decodes it");
    assert_eq!(found(rotation, flag, || vec![text("state")]), "1 columns are decoded of 2");
    let nullable = found(rotation, flag, || vec![text("state"), text("reason")]);
    assert_eq!(nullable, "column reason can be NULL, and the decoder does not take that");
    let sql = "SELECT state AS stand FROM rekey.rotations";
    assert_eq!(found(sql, Vec::new, || vec![text("state")]), "there is no column state");
    let sql = "SELECT external AS state FROM rekey.rotations";
    assert_eq!(found(sql, Vec::new, || vec![text("state")]), "column state is BOOL, decoded as TEXT");
    let sql = "SELECT FROM rekey.passes WHERE pass = $1";
    assert_eq!(found(sql, || vec![number()], Vec::new), "$1 is INT4, and INT8 is bound");
    let sql = "SELECT FROM rekey.passes WHERE pass = $2";
    let too_few = found(sql, || vec![number()], Vec::new);
    assert!(too_few.starts_with("1 are bound, and it takes 2"), "{too_few}");
    assert!(found("SELECT FROM rekey.gone", Vec::new, Vec::new).contains("does not exist"));
}

#[test]
fn on_fifteen() {
    all_hold_on(15);
}

#[test]
fn on_sixteen() {
    all_hold_on(16);
}

#[test]
fn on_seventeen() {
    all_hold_on(17);
}

#[test]
fn on_eighteen() {
    all_hold_on(18);
}
