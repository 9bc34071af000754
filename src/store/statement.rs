//! Every statement of rekey's, declared with the types of its parameters and columns. `tests/statements.rs` prepares each
//! one on each supported PostgreSQL, and holds what the server says against what is declared here.
//!
//! To add one, add three lines to the `statements!` block of the file that its table belongs to:
//!
//! ```text
//! /// Rows of a rotation that are in quarantine.
//! pub fn count(rotation: Uuid) -> One<i64> during "count the quarantine":
//!     "SELECT count(*) FROM rekey.quarantine WHERE rotation = $1";
//! ```
//!
//! and call `quarantine::count(conn, rotation).await?`. The parameters are `$1`, `$2` and so on, in their order, and a struct
//! for which [`binds!`] names parts stands for several; the words
//! after `during` complete "could not …" and name the fault points. `One`, `Optional` and `All` say how many rows are
//! expected, `Affected` counts the rows written, and no arrow stands for no answer. A row is one value, a tuple by position,
//! or a struct that [`row!`] decodes by column name. `Query` makes a function that takes no connection and returns a
//! [`Query`], which can be read row by row or given another time limit. `within LIMIT` sets that limit in the declaration;
//! `since 17` and `before 17` name the major versions of the server that know the statement.

use std::marker::PhantomData;
use std::time::Duration;

use futures::TryStreamExt as _;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArguments, PgConnection, PgRow, PgTypeInfo};
use sqlx::{Decode, Encode, Execute as _, Postgres, SqlSafeStr, Type};

use super::error::{During as _, StoreError, answered, bounded, in_time, pass_point, watched};
use super::pg_types::{FullXid, Xid};
use crate::crypto::Fingerprint;
use crate::fault_point::Side;
use crate::rotation::{
    Addressing, ChunkKind, Desired, Direction, PassKind, PassOutcome, QuarantineReason, RecordedSource,
    State, Tid,
};

/// A statement as it was declared.
pub struct Declaration {
    /// Module and function.
    pub name: &'static str,
    /// What it does, as a verb phrase.
    pub op: &'static str,
    /// Its text.
    pub sql: &'static str,
    /// The first major version of the server that knows it, and the first that does not any more.
    pub versions: std::ops::Range<u32>,
    /// The types that are bound.
    pub parameters: fn() -> Vec<PgTypeInfo>,
    /// The types its rows are decoded as; empty if they are not read.
    pub columns: fn() -> Vec<Column>,
}

/// What one column is decoded as.
pub struct Column {
    /// Its name, where it is found by that and not by its position.
    pub name: Option<&'static str>,
    /// The type it is decoded as.
    pub type_info: PgTypeInfo,
    /// Whether the decoder takes a column of this type.
    pub takes: fn(&PgTypeInfo) -> bool,
    /// Whether the decoder takes NULL.
    pub nullable: bool,
}

/// What one parameter of a declaration binds: one value, or those parts of a struct that [`binds!`] names.
pub trait Parameter {
    /// The types of the values.
    fn types() -> Vec<PgTypeInfo>;
    /// Binds them.
    fn bind_to<R>(self, query: Query<R>) -> Query<R>;
}

impl<'t, T: Encode<'t, Postgres> + Type<Postgres>> Parameter for T {
    fn types() -> Vec<PgTypeInfo> {
        vec![T::type_info()]
    }
    fn bind_to<R>(self, query: Query<R>) -> Query<R> {
        Query { inner: query.inner.bind(self), ..query }
    }
}

/// The type of one part of a struct.
pub fn type_of<S, T: Type<Postgres>>(_: fn(&S) -> &T) -> PgTypeInfo {
    T::type_info()
}

/// Makes a reference to a struct a parameter that stands for several: `binds!(Pass { rotation, number });`
macro_rules! binds {
    ($whole:ty { $($($part:ident).+),* $(,)? }) => {
        impl $crate::store::statement::Parameter for &$whole {
            fn types() -> Vec<sqlx::postgres::PgTypeInfo> {
                vec![$($crate::store::statement::type_of(|whole: &$whole| &whole.$($part).+)),*]
            }
            fn bind_to<R>(
                self,
                query: $crate::store::statement::Query<R>,
            ) -> $crate::store::statement::Query<R> {
                query $(.bind(&self.$($part).+))*
            }
        }
    };
}
pub(super) use binds;

/// A Rust type that one column is decoded as.
pub trait Cell: Type<Postgres> + for<'r> Decode<'r, Postgres> {
    /// Whether NULL is a value of it.
    const NULLABLE: bool = false;
}

impl<T: Cell> Cell for Option<T> {
    const NULLABLE: bool = true;
}

/// A Rust type that a row is decoded as.
pub trait Row {
    /// The type itself, borrowing from the row where it can.
    type Of<'r>;
    /// Its columns.
    fn columns() -> Vec<Column>;
    /// Decodes a row.
    fn decode(row: &PgRow) -> Result<Self::Of<'_>, sqlx::Error>;
}

/// A [`Row`] that outlives what it was decoded from.
pub trait OwnedRow: for<'r> Row<Of<'r> = Self> + Sized {}

impl<T: for<'r> Row<Of<'r> = T>> OwnedRow for T {}

/// Describes a column for [`Row::columns`].
pub fn column<T: Cell>(name: impl Into<Option<&'static str>>) -> Column {
    Column { name: name.into(), type_info: T::type_info(), takes: T::compatible, nullable: T::NULLABLE }
}

/// The same, of the type that a field has.
pub fn column_of<S, T: Cell>(name: &'static str, _: fn(&S) -> &T) -> Column {
    column::<T>(name)
}

macro_rules! cells {
    ($($cell:ty),*) => {
        $(
            impl Cell for $cell {}

            impl Row for $cell {
                type Of<'r> = Self;
                fn columns() -> Vec<Column> {
                    vec![column::<Self>(None)]
                }
                fn decode(row: &PgRow) -> Result<Self, sqlx::Error> {
                    sqlx::Row::try_get(row, 0)
                }
            }
        )*
    };
}

cells!(
    bool,
    i32,
    i64,
    f64,
    String,
    uuid::Uuid,
    serde_json::Value,
    Vec<u8>,
    Vec<i64>,
    Vec<uuid::Uuid>,
    Vec<String>
);
cells!(
    Oid,
    Xid,
    FullXid,
    Tid,
    Fingerprint,
    RecordedSource,
    State,
    Desired,
    Direction,
    Addressing,
    ChunkKind,
    PassKind,
    PassOutcome,
    QuarantineReason
);

impl<T: Cell> Row for Option<T> {
    type Of<'r> = Self;
    fn columns() -> Vec<Column> {
        vec![column::<Self>(None)]
    }
    fn decode(row: &PgRow) -> Result<Self, sqlx::Error> {
        sqlx::Row::try_get(row, 0)
    }
}

macro_rules! tuples {
    ($($at:literal $name:ident),*) => {
        #[allow(unused_variables)]
        impl<$($name: Cell),*> Row for ($($name,)*) {
            type Of<'r> = Self;
            fn columns() -> Vec<Column> {
                vec![$(column::<$name>(None)),*]
            }
            fn decode(row: &PgRow) -> Result<Self, sqlx::Error> {
                Ok(($(sqlx::Row::try_get::<$name, _>(row, $at)?,)*))
            }
        }
    };
}

tuples!();
tuples!(0 A, 1 B);
tuples!(0 A, 1 B, 2 C);
tuples!(0 A, 1 B, 2 C, 3 D);
tuples!(0 A, 1 B, 2 C, 3 D, 4 E);
tuples!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F);

/// Decodes a struct from a row, each of the fields named from the column of its name: `row!(Process { process, workers });`
macro_rules! row {
    ($row:ident { $($field:ident),* $(,)? }) => {
        impl $crate::store::statement::Row for $row {
            type Of<'r> = Self;
            fn columns() -> Vec<$crate::store::statement::Column> {
                vec![$($crate::store::statement::column_of(stringify!($field), |row: &$row| &row.$field)),*]
            }
            fn decode(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
                Ok($row { $($field: sqlx::Row::try_get(row, stringify!($field))?),* })
            }
        }
    };
}
pub(super) use row;

/// A statement with its parameters bound, whose rows are decoded as `R`.
#[must_use = "a statement does nothing until it is sent"]
pub struct Query<R> {
    op: &'static str,
    inner: sqlx::query::Query<'static, Postgres, PgArguments>,
    limit: Limit,
    rows: PhantomData<fn() -> R>,
}

/// How long an answer is waited for.
enum Limit {
    /// As long as the task says (`error::with_answer_limit`).
    OfTheTask,
    Within(Duration),
    HoweverLong,
}

impl<R> Query<R> {
    pub(super) fn new(op: &'static str, sql: &'static str) -> Query<R> {
        Query { op, inner: sqlx::query(sql), limit: Limit::OfTheTask, rows: PhantomData }
    }

    pub(super) fn bind(self, value: impl Parameter) -> Query<R> {
        value.bind_to(self)
    }

    /// Calls it something else in errors and at fault points.
    pub fn named(self, op: &'static str) -> Query<R> {
        Query { op, ..self }
    }

    /// Waits no longer than this for the answer: the connection is lost then, and must not be used again.
    pub fn within(self, limit: Duration) -> Query<R> {
        Query { limit: Limit::Within(limit), ..self }
    }

    /// Waits for as long as it takes.
    pub fn however_long(self) -> Query<R> {
        Query { limit: Limit::HoweverLong, ..self }
    }

    /// Sends it, and returns how many rows it wrote.
    pub async fn affected(self, conn: &mut PgConnection) -> Result<u64, StoreError> {
        let done = self.limit.applied(self.op, self.inner.execute(conn)).await?;
        Ok(done.rows_affected())
    }

    /// Sends it, and looks at nothing that it returns.
    pub async fn run(self, conn: &mut PgConnection) -> Result<(), StoreError> {
        self.affected(conn).await.map(drop)
    }
}

impl<R: OwnedRow> Query<R> {
    /// The one row there must be.
    pub async fn one(self, conn: &mut PgConnection) -> Result<R, StoreError> {
        let row = self.limit.applied(self.op, self.inner.fetch_one(conn)).await?;
        R::decode(&row).during(self.op)
    }

    /// The same in one message, which works behind any pooler. Takes no parameters.
    pub async fn one_unprepared(self, conn: &mut PgConnection) -> Result<R, StoreError> {
        let sent = sqlx::raw_sql(self.inner.sql()).fetch_one(conn);
        let row = self.limit.applied(self.op, sent).await?;
        R::decode(&row).during(self.op)
    }

    /// The row there may be.
    pub async fn optional(self, conn: &mut PgConnection) -> Result<Option<R>, StoreError> {
        let row = self.limit.applied(self.op, self.inner.fetch_optional(conn)).await?;
        row.map(|row| R::decode(&row)).transpose().during(self.op)
    }

    /// All rows.
    pub async fn all(self, conn: &mut PgConnection) -> Result<Vec<R>, StoreError> {
        let rows = self.limit.applied(self.op, self.inner.fetch_all(conn)).await?;
        rows.iter().map(|row| R::decode(row)).collect::<Result<_, _>>().during(self.op)
    }
}

impl<R: Row> Query<R> {
    /// Hands on each row as it arrives.
    pub async fn each<E: From<StoreError>>(
        self,
        conn: &mut PgConnection,
        mut each: impl for<'r> FnMut(R::Of<'r>) -> Result<(), E>,
    ) -> Result<(), E> {
        let op = self.op;
        pass_point(Side::Before, op).during(op)?;
        let mut rows = self.inner.fetch(conn);
        while let Some(row) = self.limit.of_a_part(op, rows.try_next()).await? {
            each(R::decode(&row).during(op)?)?;
        }
        pass_point(Side::After, op).during(op)?;
        Ok(())
    }
}

impl Limit {
    async fn applied<T>(
        &self,
        op: &'static str,
        sent: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        self.of_a_part(op, watched(op, sent)).await
    }

    async fn of_a_part<T>(
        &self,
        op: &'static str,
        part: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        match self {
            Limit::OfTheTask => answered(op, part).await,
            Limit::Within(limit) => in_time(op, *limit, part).await,
            Limit::HoweverLong => part.await.during(op),
        }
    }
}

/// Sends statements that are not declared, because they set things up and return nothing: several in one message.
pub async fn script(
    conn: &mut PgConnection,
    op: &'static str,
    limit: Duration,
    text: impl SqlSafeStr,
) -> Result<(), StoreError> {
    bounded(op, limit, sqlx::raw_sql(text).execute(conn)).await.map(drop)
}

/// Declares statements; see this module.
macro_rules! statements {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $answer:ident $(<$row:ty>)?)?
        $(within $limit:ident)? $(since $since:literal)? $(before $before:literal)?
        during $op:tt: $sql:expr;
    )*) => {
        $($crate::store::statement::function! {
            [$(#[$meta])* $vis] $name ($($arg: $ty),*) [$($answer $(<$row>)?)?] [$(.within($limit))?] $op, $sql
        })*

        pub(in $crate::store) const STATEMENTS: &[$crate::store::statement::Declaration] = &[
            $($crate::store::statement::Declaration {
                name: concat!(module_path!(), "::", stringify!($name)),
                op: $op,
                sql: $sql,
                versions: { let _first = 0; $(let _first = $since;)? let _end = u32::MAX; $(let _end = $before;)? _first.._end },
                parameters: || <[Vec<sqlx::postgres::PgTypeInfo>]>::concat(&[$(<$ty as $crate::store::statement::Parameter>::types()),*]),
                columns: || {
                    let _columns = Vec::<$crate::store::statement::Column>::new();
                    $($(let _columns = <$row as $crate::store::statement::Row>::columns();)?)?
                    _columns
                },
            }),*
        ];
    };
}
pub(super) use statements;

/// The function that one declaration makes.
macro_rules! function {
    ([$($head:tt)*] $name:ident ($($arg:ident: $ty:ty),*) [Query<$row:ty>] [$($limit:tt)*] $op:expr, $sql:expr) => {
        $($head)* fn $name($($arg: $ty),*) -> $crate::store::statement::Query<$row> {
            $crate::store::statement::Query::new($op, $sql) $(.bind($arg))* $($limit)*
        }
    };
    ([$($head:tt)*] $name:ident $args:tt [One<$row:ty>] $limit:tt $op:expr, $sql:expr) => {
        $crate::store::statement::sent! { [$($head)*] $name $args [$row] [$row] one $limit $op, $sql }
    };
    ([$($head:tt)*] $name:ident $args:tt [Optional<$row:ty>] $limit:tt $op:expr, $sql:expr) => {
        $crate::store::statement::sent! { [$($head)*] $name $args [$row] [Option<$row>] optional $limit $op, $sql }
    };
    ([$($head:tt)*] $name:ident $args:tt [All<$row:ty>] $limit:tt $op:expr, $sql:expr) => {
        $crate::store::statement::sent! { [$($head)*] $name $args [$row] [Vec<$row>] all $limit $op, $sql }
    };
    ([$($head:tt)*] $name:ident $args:tt [Affected] $limit:tt $op:expr, $sql:expr) => {
        $crate::store::statement::sent! { [$($head)*] $name $args [()] [u64] affected $limit $op, $sql }
    };
    ([$($head:tt)*] $name:ident $args:tt [] $limit:tt $op:expr, $sql:expr) => {
        $crate::store::statement::sent! { [$($head)*] $name $args [()] [()] run $limit $op, $sql }
    };
}
pub(super) use function;

/// The same, of a statement that is sent at once.
macro_rules! sent {
    (
        [$($head:tt)*] $name:ident ($($arg:ident: $ty:ty),*) [$row:ty] [$answer:ty] $ask:ident [$($limit:tt)*] $op:expr, $sql:expr
    ) => {
        $($head)* async fn $name(
            conn: &mut sqlx::PgConnection,
            $($arg: $ty),*
        ) -> Result<$answer, $crate::store::StoreError> {
            $crate::store::statement::Query::<$row>::new($op, $sql) $(.bind($arg))* $($limit)* .$ask(conn).await
        }
    };
}
pub(super) use sent;

#[cfg(test)]
mod tests;
