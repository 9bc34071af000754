//! The bounds of a chunk, and how large chunks should be.

use uuid::Uuid;

use super::words::words;

words! {
    /// What tells the rows of a chunk, in the ledger.
    ChunkKind {
        /// [`Bounds::Keys`]
        Keys = "keys",
        /// [`Bounds::Blocks`]
        Blocks = "blocks",
        /// [`Bounds::Ids`]
        Ids = "ids",
        /// [`Bounds::Proof`]
        Proof = "proof",
    }
}

/// What a chunk covers. Key bounds are `(lo, hi]`; `None` is open, and has SQL of its own (`id > nil` would skip
/// the nil UUID). Blocks are `[lo, hi)` of the heap as it was when the pass began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bounds {
    /// A primary-key range.
    Keys { lo: Option<Uuid>, hi: Option<Uuid> },
    /// A range of heap blocks.
    Blocks { lo: u32, hi: u32 },
    /// Rows named one by one: stragglers.
    Ids(Vec<Uuid>),
    /// No rows of its own: the closing proof over the whole table.
    Proof,
}

/// How much one chunk, and one statement, may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSize {
    /// Rows carved into one chunk.
    pub rows: u32,
    /// Ciphertext bytes one worker holds of a chunk at a time.
    pub bytes: usize,
}

impl ChunkSize {
    /// What is kept of a row beside its ciphertext: ids, version, tag, and the allocator's share.
    pub const ROW_OVERHEAD: usize = 100;

    /// Bytes a worker may hold at a time ("~24 MB a worker", docs/performance.md).
    pub const MAX_BYTES: usize = 24 << 20;

    /// Bytes beyond which PostgreSQL stores a value out of line (TOAST_TUPLE_THRESHOLD).
    const LARGE_ROW: f64 = 2000.0;

    /// 1000 × rows per page for one worker, four times that for several: with smaller chunks two workers return
    /// to a page before the other's snapshot lets it be pruned (75 % HOT instead of 91 %, docs/performance.md).
    pub fn choose(workers: usize, rows_per_page: f64, row_bytes: f64) -> ChunkSize {
        let rows = 1000.0 * rows_per_page.clamp(4.0, 16.0) * if workers > 1 { 4.0 } else { 1.0 };
        // Batches of large values take their share of the memory too, on their way to the server.
        let bytes = if row_bytes > Self::LARGE_ROW { Self::MAX_BYTES / 4 * 3 } else { Self::MAX_BYTES };
        let by_bytes = bytes as f64 / (row_bytes.max(0.0) + Self::ROW_OVERHEAD as f64);
        ChunkSize { rows: rows.min(by_bytes).max(64.0) as u32, bytes }
    }

    /// Rows of the next chunk, when about `remaining` are left: smaller towards the end, so that workers end
    /// together, and in small tables, so that all of them have work.
    pub fn taper(full: i64, remaining: i64) -> i64 {
        (remaining / 4).clamp((full / 4).max(1), full.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn chunks_taper_towards_the_end() {
        assert_eq!(ChunkSize::taper(48_000, 1_000_000), 48_000);
        assert_eq!(ChunkSize::taper(48_000, 100_000), 25_000);
        assert_eq!(ChunkSize::taper(48_000, -5), 12_000);
        assert_eq!(ChunkSize::taper(1, 0), 1);
    }

    #[test]
    fn chunks_follow_workers_and_bytes() {
        assert_eq!(ChunkSize::choose(1, 12.0, 500.0).rows, 12_000);
        assert_eq!(ChunkSize::choose(2, 12.0, 400.0).rows, 48_000);
        assert_eq!(ChunkSize::choose(2, 12.0, 500.0).rows, 41_943);
        assert!(ChunkSize::choose(2, 50.0, 3000.0).rows <= 8_400);
        assert_eq!(ChunkSize::choose(2, 50.0, 1e9).rows, 64);
        assert_eq!(ChunkSize::choose(1, 1.0, 0.0).rows, 4_000);
        assert_eq!(ChunkSize::choose(1, 50.0, -1.0).rows, 16_000);
        assert_eq!(ChunkSize::choose(1, 12.0, 500.0).bytes, 24 * 1024 * 1024);
        assert_eq!(ChunkSize::choose(1, 12.0, 2000.0).bytes, 24 * 1024 * 1024);
        assert_eq!(ChunkSize::choose(1, 12.0, 3000.0).bytes, 18 * 1024 * 1024);
    }

    proptest! {
        /// A worker holds no more than its bytes, and more workers never get smaller chunks.
        #[test]
        fn a_chunk_fits_its_worker(per_page in 0.1_f64..500.0, bytes in 0.0_f64..2e7) {
            let one = ChunkSize::choose(1, per_page, bytes);
            let held = f64::from(one.rows) * (bytes + ChunkSize::ROW_OVERHEAD as f64);
            prop_assert!(one.rows == 64 || held <= ChunkSize::MAX_BYTES as f64);
            prop_assert!((64..=16_000).contains(&one.rows));
            for workers in 2..5 {
                let many = ChunkSize::choose(workers, per_page, bytes);
                prop_assert!(many.rows >= one.rows && many.rows <= 4 * one.rows + 3);
            }
        }

        #[test]
        fn tapering_stays_between_a_quarter_and_the_whole(full in 1_i64..1 << 40, left in -(1_i64 << 40)..1 << 40) {
            let rows = ChunkSize::taper(full, left);
            prop_assert!(rows >= 1 && rows >= full / 4 && rows <= full);
            prop_assert!(rows <= ChunkSize::taper(full, left + 4));
        }
    }
}
