//! Which database a rotation belongs to: a template copy, a restored dump or a clone of the cluster carries the ledger
//! along, and acting on it would move rows, or change a key, that are not its own.
//!
//! A copy of the files themselves, taken by the storage, bears the same names as its original: that one cannot be told.

use sqlx::PgConnection;
use uuid::Uuid;

use super::error::StoreError;
use super::statement::{row, statements};

/// One database of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Of the cluster; none where the role may not ask for it.
    system_identifier: Option<i64>,
    database_oid: i64,
    database_name: String,
}

struct Here {
    oid: i64,
    name: String,
    may_ask: bool,
}

row!(Here { oid, name, may_ask });

struct Recorded {
    oid: Option<i64>,
    name: Option<String>,
    system_identifier: Option<i64>,
}

row!(Recorded { oid, name, system_identifier });

statements! {
    fn this_database() -> One<Here> during "ask which database this is":
        "SELECT oid::int8 AS oid, datname::text AS name, \
         has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') AS may_ask \
         FROM pg_catalog.pg_database WHERE datname = current_database()";

    fn this_cluster() -> One<i64> during "ask which cluster this is":
        "SELECT system_identifier FROM pg_catalog.pg_control_system()";

    /// By way of JSON: a ledger that is not upgraded yet lacks the columns.
    fn recorded(rotation: Uuid) -> One<Recorded> during "read where the rotation was begun":
        "SELECT (r.o->>'database_oid')::int8 AS oid, r.o->>'database_name' AS name, \
         (r.o->>'system_identifier')::int8 AS system_identifier \
         FROM (SELECT to_jsonb(rotations) AS o FROM rekey.rotations WHERE id = $1) r";

    fn record(rotation: Uuid, system_identifier: Option<i64>, oid: i64, name: String)
        during "record where the rotation was begun":
        "UPDATE rekey.rotations SET system_identifier = $2, database_oid = $3::int8::oid, database_name = $4::name WHERE id = $1";
}

impl Origin {
    /// The database at the other end.
    pub async fn here(conn: &mut PgConnection) -> Result<Origin, StoreError> {
        let Here { oid, name, may_ask } = this_database(conn).await?;
        let system_identifier = if may_ask { Some(this_cluster(conn).await?) } else { None };
        Ok(Origin { system_identifier, database_oid: oid, database_name: name })
    }

    /// Where a rotation was begun; none where an older version recorded it.
    pub async fn of(conn: &mut PgConnection, rotation: Uuid) -> Result<Option<Origin>, StoreError> {
        let Recorded { oid, name, system_identifier } = recorded(conn, rotation).await?;
        let origin = |database_oid| Origin {
            system_identifier,
            database_oid,
            database_name: name.unwrap_or_default(),
        };
        Ok(oid.map(origin))
    }

    /// Records that a rotation was begun in the database at the other end.
    pub async fn record(conn: &mut PgConnection, rotation: Uuid) -> Result<(), StoreError> {
        let here = Origin::here(conn).await?;
        record(conn, rotation, here.system_identifier, here.database_oid, here.database_name).await
    }

    /// Where a rotation came from, if the database at the other end is another one.
    pub async fn if_elsewhere(conn: &mut PgConnection, rotation: Uuid) -> Result<Option<Origin>, StoreError> {
        let Some(recorded) = Origin::of(conn, rotation).await? else { return Ok(None) };
        let here = Origin::here(conn).await?;
        Ok((!recorded.may_be(&here)).then_some(recorded))
    }

    /// The database's name does not count: it may be changed.
    fn may_be(&self, other: &Origin) -> bool {
        let clusters = (self.system_identifier, other.system_identifier);
        let same_cluster = !matches!(clusters, (Some(this), Some(that)) if this != that);
        same_cluster && self.database_oid == other.database_oid
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "database {} (oid {})", self.database_name, self.database_oid)?;
        // As pg_controldata prints it.
        self.system_identifier.map_or(Ok(()), |id| write!(f, " of cluster {}", id.cast_unsigned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_known_by_cluster_and_oid() {
        let origin = |system_identifier, database_oid, name: &str| Origin {
            system_identifier,
            database_oid,
            database_name: name.into(),
        };
        let here = origin(Some(7), 5, "dashtam");
        for (other, same) in [
            (origin(Some(7), 5, "renamed"), true),
            (origin(None, 5, "dashtam"), true),
            (origin(Some(8), 5, "dashtam"), false),
            (origin(Some(7), 6, "dashtam"), false),
            (origin(None, 6, "dashtam"), false),
        ] {
            assert_eq!(here.may_be(&other), same, "{other}");
            assert_eq!(other.may_be(&here), same, "{other}");
        }
        assert_eq!(here.to_string(), "database dashtam (oid 5) of cluster 7");
    }
}
