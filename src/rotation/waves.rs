//! Waves: why a batch touches at most one row of each heap page, and which one comes first.
//!
//! A packed page has no room for new row versions. If a transaction moves one row out of each page, then once it
//! has committed PostgreSQL prunes the dead version and the next wave finds room on the page: a HOT update, no
//! index insert. So the rows of a page are dealt to different waves, the largest first: the room that it leaves is
//! enough for every other. A page that is met again before it can be pruned gives another row away, so a page's
//! rows are spread evenly over the waves, however many it has. Fewer rows than one batch a wave would buy nothing,
//! so there are never more waves than batches, and then a wave has several rows of a page, next to each other in size.

use std::cmp::Reverse;
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
    /// Bytes that its credential takes on its heap page: few where the value is stored out of line.
    fn on_page(&self) -> usize;
}

/// The rows of one transaction, as a range of the dealt order.
pub type Slice = Range<usize>;

/// Rows as they were dealt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deal {
    /// Where each wave begins and ends.
    pub waves: Vec<Slice>,
    /// Rows of one batch, at most.
    pub batch_rows: usize,
}

/// Batches between two visits to a page. One lets the other worker's statement end, whose snapshot may be older than
/// what was committed last; one more, what is being read meanwhile.
const APART: usize = 3;

/// Orders `rows` wave by wave, by place within a wave. A batch has at most `max_rows` rows, or about `max_bytes` bytes; in a
/// small chunk fewer, so that the batches between two visits to a page remain [`APART`] where they can: down to [`FEW`] rows,
/// or, where bytes are what bounds a batch, to a quarter of them.
pub fn deal<T: Wavable>(rows: &mut [T], max_rows: usize, max_bytes: usize) -> Deal {
    rows.sort_unstable_by_key(|row| (row.tid().block, Reverse(row.on_page()), row.tid().offset));
    let same_page = |a: &T, b: &T| a.tid().block == b.tid().block;
    let (mut deepest, mut squares) = (0, 0);
    for page in rows.chunk_by(same_page) {
        deepest = deepest.max(page.len());
        squares += page.len() * page.len();
    }
    // The rows that the page of an average row has.
    let depth = squares.div_ceil(rows.len().max(1)).max(1);
    let most = batch_rows(rows, max_rows, max_bytes);
    let few = if most < max_rows { FEW.min(most.div_ceil(4)) } else { FEW.min(most) };
    let least = (rows.len() / (depth * APART)).clamp(few, most);
    let waves = deepest.min(rows.len().div_ceil(least)).max(1);
    // As many of these batches as a wave has, and some room: waves differ a little in size.
    let wave = rows.len().div_ceil(waves);
    let batch_rows = most.min(wave.div_ceil((wave / least).max(1)) * 9 / 8);

    let mut counts = vec![0usize; waves];
    let mut target = Vec::with_capacity(rows.len());
    for page in rows.chunk_by(same_page) {
        // Pages of few rows leave out a wave here and there, and not all of them the same one.
        let shift = page[0].tid().block.wrapping_mul(0x9E37_79B1) as usize % waves;
        for rank in 0..page.len() {
            let wave = (rank * waves + shift) / page.len();
            counts[wave] += 1;
            target.push(wave);
        }
    }
    let mut ends = Vec::with_capacity(waves);
    let mut at = 0;
    for count in &counts {
        ends.push(at..at + count);
        at += count;
    }
    // Where each row goes; then permute in place by following cycles.
    let mut next: Vec<usize> = ends.iter().map(|w| w.start).collect();
    for wave in &mut target {
        let slot = &mut next[*wave];
        *wave = *slot;
        *slot += 1;
    }
    for i in 0..rows.len() {
        while target[i] != i {
            let to = target[i];
            rows.swap(i, to);
            target.swap(i, to);
        }
    }
    if waves < deepest {
        // Rows are locked in the order of their places, as a scan of the table locks them.
        ends.iter().for_each(|wave| rows[wave.clone()].sort_unstable_by_key(Wavable::tid));
    }
    ends.retain(|w| !w.is_empty());
    Deal { waves: ends, batch_rows }
}

/// The fewest rows that a batch is cut down to because of company, or of a small chunk.
const FEW: usize = 250;

/// Rows of a batch beside so many workers, of all processes, where two may have `max` each. The others' snapshots hold
/// back pruning for as long as their batches take, and a wave that comes back to a page before that finds no room on it.
pub fn share(max: usize, workers: usize) -> usize {
    max.min((2 * max / workers.max(2)).max(FEW))
}

/// How many of `rows` one batch takes on average.
fn batch_rows<T: Wavable>(rows: &[T], max_rows: usize, max_bytes: usize) -> usize {
    let bytes: usize = rows.iter().map(Wavable::size).sum();
    let mean = bytes / rows.len().max(1);
    max_rows.min(max_bytes / mean.max(1)).max(1)
}

/// The next batch of a wave: at most `max_rows` rows and, beyond the first row, at most `max_bytes` bytes. What is left of
/// the wave is shared out evenly, so that the last batch is no smaller than the others.
pub fn next_slice<T: Wavable>(rows: &[T], wave: &Slice, max_rows: usize, max_bytes: usize) -> Slice {
    let batches = wave.len().div_ceil(max_rows.max(1)).max(1);
    let max_rows = wave.len().div_ceil(batches);
    let mut bytes = 0;
    let mut end = wave.start;
    while end < wave.end && end - wave.start < max_rows {
        bytes += rows[end].size();
        if end > wave.start && bytes > max_bytes {
            break;
        }
        end += 1;
    }
    wave.start..end
}

#[cfg(test)]
mod tests;
