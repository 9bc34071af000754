//! Which rows a reading statement asks for, and the statement that reads them.

use uuid::Uuid;

use super::{INLINE_BYTES, Read, read_after, read_at, read_from_start, read_ids, read_places};
use crate::rotation::Tid;
use crate::store::statement::Query;

/// The next stretch of a chunk to read.
#[derive(Clone, Debug)]
pub enum Stretch {
    /// Keys from the open start, up to `hi` inclusive.
    FromStart { hi: Uuid, limit: i64 },
    /// Keys after `lo`, up to `hi` inclusive.
    After { lo: Uuid, hi: Uuid, limit: i64 },
    /// Places in the heap after `after`, in blocks before `hi`; in the order of their places.
    Places { after: Tid, hi: u32, limit: i64 },
    /// These rows; values longer than `max` bytes are left out.
    Ids { ids: Vec<Uuid>, max: i32 },
    /// Whatever is at these places; values longer than `max` bytes are left out.
    At { places: Vec<Tid>, max: i32 },
}

impl Stretch {
    /// The longest value that the statement carries.
    pub fn max(&self) -> i32 {
        match self {
            Stretch::Ids { max, .. } | Stretch::At { max, .. } => *max,
            _ => INLINE_BYTES,
        }
    }

    /// The most rows it has; none for rows that are named.
    pub fn limit(&self) -> Option<i64> {
        match self {
            Stretch::FromStart { limit, .. }
            | Stretch::After { limit, .. }
            | Stretch::Places { limit, .. } => Some(*limit),
            Stretch::Ids { .. } | Stretch::At { .. } => None,
        }
    }

    /// The same rows, one by one or a few of them: by the way that they were met.
    pub fn some(&self, rows: &[(Uuid, Tid)], max: i32) -> Stretch {
        match self {
            Stretch::Places { .. } | Stretch::At { .. } => {
                Stretch::At { places: rows.iter().map(|(_, at)| *at).collect(), max }
            }
            _ => Stretch::Ids { ids: rows.iter().map(|(id, _)| *id).collect(), max },
        }
    }

    pub(super) fn query(&self, max: i32) -> Query<Read<'static>> {
        match self {
            Stretch::FromStart { hi, limit } => read_from_start(max, *hi, *limit),
            Stretch::After { lo, hi, limit } => read_after(max, *lo, *hi, *limit),
            Stretch::Places { after, hi, limit } => {
                read_places(max, *after, Tid { block: *hi, offset: 0 }, *limit)
            }
            Stretch::Ids { ids, .. } => read_ids(max, ids),
            Stretch::At { places, .. } => read_at(max, places),
        }
    }
}
