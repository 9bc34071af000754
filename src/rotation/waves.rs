//! Waves: why a batch touches at most one row of each heap page.
//!
//! A packed page has no room for new row versions. If a transaction moves one row out of each page, then once it
//! has committed PostgreSQL prunes the dead version and the next wave finds room on the page: a HOT update, no
//! index insert. So rows are ordered by their place in the heap and dealt: the k-th row of every page goes into
//! wave k. Fewer rows than one batch a wave would buy nothing, so waves are folded until each fills one.

use std::ops::Range;

/// A row's place in the heap: block and line pointer. It deals rows into waves; alone it is never an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tid {
    /// Heap block number.
    pub block: u32,
    /// Line pointer on the page.
    pub offset: u16,
}

/// Something with a place in the heap and a size.
pub trait Wavable {
    /// Where the row was read.
    fn tid(&self) -> Tid;
    /// Bytes it adds to a batch.
    fn size(&self) -> usize;
}

/// The rows of one transaction, as a range of the dealt order.
pub type Slice = Range<usize>;

/// Orders `rows` wave by wave, by place within a wave, and returns how many waves there are and where each ends.
/// `batch_rows` is the size below which a wave is not worth its own transaction.
pub fn deal<T: Wavable>(rows: &mut [T], batch_rows: usize) -> Vec<Slice> {
    rows.sort_unstable_by_key(Wavable::tid);
    let mut ranks = Vec::with_capacity(rows.len());
    let mut rank = 0u32;
    for i in 0..rows.len() {
        rank = if i > 0 && rows[i].tid().block == rows[i - 1].tid().block { rank + 1 } else { 0 };
        ranks.push(rank);
    }
    let deepest = ranks.iter().max().map_or(0, |r| r + 1);
    let worthwhile = rows.len().div_ceil(batch_rows.max(1)).max(1) as u32;
    let waves = deepest.min(worthwhile).max(1);

    let mut counts = vec![0usize; waves as usize];
    for r in &ranks {
        counts[(r % waves) as usize] += 1;
    }
    let mut ends = Vec::with_capacity(counts.len());
    let mut at = 0;
    for count in &counts {
        ends.push(at..at + count);
        at += count;
    }
    // Where each row goes; then permute in place by following cycles.
    let mut next: Vec<usize> = ends.iter().map(|w| w.start).collect();
    let mut target: Vec<usize> = ranks
        .iter()
        .map(|r| {
            let slot = &mut next[(r % waves) as usize];
            *slot += 1;
            *slot - 1
        })
        .collect();
    for i in 0..rows.len() {
        while target[i] != i {
            let to = target[i];
            rows.swap(i, to);
            target.swap(i, to);
        }
    }
    ends.retain(|w| !w.is_empty());
    ends
}

/// The fewest rows that a batch is cut down to because of company.
const FEW: usize = 250;

/// Rows of a batch beside so many workers, of all processes, where two may have `max` each. The others' snapshots hold
/// back pruning for as long as their batches take, and a wave that comes back to a page before that finds no room on it.
pub fn share(max: usize, workers: usize) -> usize {
    max.min((2 * max / workers.max(2)).max(FEW))
}

/// How many of `rows` one batch takes on average: what a wave should at least have for [`deal`].
pub fn batch_rows<T: Wavable>(rows: &[T], max_rows: usize, max_bytes: usize) -> usize {
    let bytes: usize = rows.iter().map(Wavable::size).sum();
    let mean = bytes / rows.len().max(1);
    max_rows.min(max_bytes / mean.max(1)).max(1)
}

/// The next batch of a wave: at most `max_rows` rows and, beyond the first row, at most `max_bytes` bytes.
pub fn next_slice<T: Wavable>(rows: &[T], wave: &Slice, max_rows: usize, max_bytes: usize) -> Slice {
    let mut bytes = 0;
    let mut end = wave.start;
    while end < wave.end && end - wave.start < max_rows.max(1) {
        bytes += rows[end].size();
        if end > wave.start && bytes > max_bytes {
            break;
        }
        end += 1;
    }
    wave.start..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Row(Tid, usize);

    impl Wavable for Row {
        fn tid(&self) -> Tid {
            self.0
        }
        fn size(&self) -> usize {
            self.1
        }
    }

    fn table(blocks: u32, per_page: u16) -> Vec<Row> {
        let page = move |block| (1..=per_page).map(move |offset| Row(Tid { block, offset }, 500));
        (0..blocks).flat_map(page).collect()
    }

    #[test]
    fn a_full_chunk_makes_one_wave_per_row_of_a_page() {
        let mut rows = table(1000, 12);
        let waves = deal(&mut rows, 1000);
        assert_eq!(waves.len(), 12);
        for wave in waves {
            let mut blocks: Vec<_> = rows[wave].iter().map(|r| r.0.block).collect();
            blocks.dedup();
            assert_eq!(blocks.len(), 1000, "a page twice in one wave");
        }
    }

    #[test]
    fn small_segments_fold_into_few_waves() {
        assert_eq!(deal(&mut table(160, 50), 1000).len(), 8);
        assert_eq!(deal(&mut table(10, 12), 1000).len(), 1);
        assert_eq!(deal(&mut Vec::<Row>::new(), 1000).len(), 0);
    }

    #[test]
    fn a_batch_has_as_many_rows_as_its_bytes_allow() {
        let rows = |bytes| vec![Row(Tid { block: 0, offset: 1 }, bytes); 10];
        assert_eq!(batch_rows(&rows(500), 1000, 1 << 20), 1000);
        assert_eq!(batch_rows(&rows(3000), 1000, 1 << 20), 349);
        assert_eq!(batch_rows(&rows(2 << 20), 1000, 1 << 20), 1);
        assert_eq!(batch_rows(&rows(0), 0, 0), 1);
        assert_eq!(batch_rows(&rows(500)[..0], 1000, 1 << 20), 1000);
    }

    #[test]
    fn in_company_batches_are_shorter() {
        let shares = [0, 1, 2, 4, 8].map(|workers| share(1000, workers));
        assert_eq!(shares, [1000, 1000, 1000, 500, 250]);
        assert_eq!([share(50, 8), share(300, 8), share(0, 3)], [50, 250, 0]);
    }

    #[test]
    fn slices_obey_rows_and_bytes_but_always_move() {
        let rows = vec![Row(Tid { block: 0, offset: 1 }, 1 << 20); 10];
        assert_eq!(next_slice(&rows, &(0..10), 1000, 4 << 20), 0..4);
        assert_eq!(next_slice(&rows, &(9..10), 1000, 10), 9..10);
        assert_eq!(next_slice(&rows, &(0..10), 3, usize::MAX), 0..3);
    }

    proptest! {
        /// Waves are folded evenly: no page is met more often in one wave than it must be.
        #[test]
        fn a_wave_holds_as_few_rows_of_a_page_as_can_be(blocks in 1u32..40, per_page in 1u16..40, batch in 1usize..300) {
            let mut rows = table(blocks, per_page);
            let total = rows.len();
            let waves = deal(&mut rows, batch);
            let most = waves.iter().map(|wave| {
                let mut of_page = std::collections::HashMap::new();
                rows[wave.clone()].iter().for_each(|row| *of_page.entry(row.0.block).or_insert(0usize) += 1);
                of_page.into_values().max().unwrap_or(0)
            });
            prop_assert_eq!(most.max().unwrap_or(0), usize::from(per_page).div_ceil(waves.len()));
            prop_assert_eq!(waves.len(), usize::from(per_page).min(total.div_ceil(batch)));
        }

        #[test]
        fn slices_cover_a_wave_within_their_limits(
            sizes in prop::collection::vec(0usize..3000, 1..80), max_rows in 1usize..20, max_bytes in 0usize..9000,
        ) {
            let row = |(i, &size): (usize, &usize)| Row(Tid { block: i as u32, offset: 1 }, size);
            let rows: Vec<_> = sizes.iter().enumerate().map(row).collect();
            let mut at = 0;
            while at < rows.len() {
                let slice = next_slice(&rows, &(at..rows.len()), max_rows, max_bytes);
                prop_assert!(slice.start == at && slice.end > at && slice.len() <= max_rows);
                let bytes: usize = sizes[slice.clone()].iter().sum();
                prop_assert!(slice.len() == 1 || bytes <= max_bytes);
                // As much as fits: the next row would have been too many.
                if slice.len() < max_rows && slice.end < rows.len() {
                    prop_assert!(bytes + sizes[slice.end] > max_bytes);
                }
                at = slice.end;
            }
        }

        #[test]
        fn dealing_loses_nothing_and_covers_everything(
            tids in prop::collection::btree_set((0u32..50, 1u16..60), 0..600), batch in 1usize..200,
        ) {
            let mut rows: Vec<_> =
                tids.iter().map(|&(block, offset)| Row(Tid { block, offset }, 1)).collect();
            let before = rows.clone();
            let waves = deal(&mut rows, batch);
            prop_assert_eq!(waves.iter().map(|w| w.len()).sum::<usize>(), rows.len());
            prop_assert!(waves.windows(2).all(|w| w[0].end == w[1].start));
            for wave in &waves {
                prop_assert!(rows[wave.clone()].windows(2).all(|p| p[0].0 < p[1].0), "not in heap order");
            }
            rows.sort_by_key(|r| r.0);
            prop_assert_eq!(rows, before);
        }
    }
}
