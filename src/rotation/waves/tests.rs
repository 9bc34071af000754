use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq)]
struct Row {
    tid: Tid,
    size: usize,
    on_page: usize,
}

impl Wavable for Row {
    fn tid(&self) -> Tid {
        self.tid
    }
    fn size(&self) -> usize {
        self.size
    }
    fn on_page(&self) -> usize {
        self.on_page
    }
}

fn row(block: u32, offset: u16, size: usize) -> Row {
    Row { tid: Tid { block, offset }, size, on_page: size }
}

fn table(blocks: u32, per_page: u16) -> Vec<Row> {
    (0..blocks).flat_map(|block| (1..=per_page).map(move |offset| row(block, offset, 500))).collect()
}

/// How many rows of one page the slice has, at most.
fn most_of_a_page(rows: &[Row]) -> usize {
    let mut of_page = HashMap::new();
    rows.iter().for_each(|row| *of_page.entry(row.tid.block).or_insert(0usize) += 1);
    of_page.into_values().max().unwrap_or(0)
}

/// The batches that a writer makes of the deal.
fn batches(rows: &[Row], deal: &Deal, max_bytes: usize) -> Vec<Slice> {
    let mut all = Vec::new();
    for wave in &deal.waves {
        let mut wave = wave.clone();
        while !wave.is_empty() {
            let slice = next_slice(rows, &wave, deal.batch_rows, max_bytes);
            wave.start = slice.end;
            all.push(slice);
        }
    }
    all
}

#[test]
fn a_full_chunk_makes_one_wave_per_row_of_a_page() {
    let mut rows = table(4000, 12);
    let deal = deal(&mut rows, 1000, 1 << 20);
    assert_eq!((deal.waves.len(), deal.batch_rows), (12, 1000));
    for wave in deal.waves {
        assert_eq!((wave.len(), most_of_a_page(&rows[wave])), (4000, 1));
    }
}

#[test]
fn small_chunks_have_smaller_batches_and_then_fewer_waves() {
    let shape = |blocks, per_page| {
        let deal = deal(&mut table(blocks, per_page), 1000, 1 << 20);
        (deal.waves.len(), deal.batch_rows)
    };
    assert_eq!(shape(1000, 12), (12, 375), "three batches a wave");
    assert_eq!(shape(160, 50), (32, 281));
    assert_eq!(shape(10, 12), (1, 135));
    assert_eq!(shape(20, 12), (1, 270), "not cut into batches of a few rows");
    let mut large: Vec<_> =
        (0..120).flat_map(|block| (1..=50).map(move |offset| row(block, offset, 3000))).collect();
    let dealt = deal(&mut large, 1000, 1 << 20);
    assert_eq!((dealt.waves.len(), dealt.batch_rows), (50, 135), "bytes are what bounds them");
    assert_eq!(deal(&mut [] as &mut [Row], 1000, 1 << 20), Deal { waves: vec![], batch_rows: 0 });
}

#[test]
fn the_largest_row_on_the_page_comes_first() {
    // The third is the largest of all, but lies out of line.
    let mut rows: Vec<_> =
        (0..4).flat_map(|block| [row(block, 1, 90), row(block, 2, 700), row(block, 3, 3000)]).collect();
    rows.iter_mut().filter(|row| row.size == 3000).for_each(|row| row.on_page = 18);
    let deal = deal(&mut rows, 4, 1 << 20);
    let sizes: Vec<Vec<_>> =
        deal.waves.iter().map(|w| rows[w.clone()].iter().map(|r| r.on_page).collect()).collect();
    assert_eq!(sizes, [[700; 4], [90; 4], [18; 4]]);
}

#[test]
fn pages_of_few_rows_are_met_at_even_distances() {
    let mut rows = table(2000, 5);
    rows.extend((2000..2100).flat_map(|block| (1..=20).map(move |offset| row(block, offset, 100))));
    let deal = deal(&mut rows, 100, 1 << 20);
    assert_eq!(deal.waves.len(), 20);
    let mut met: HashMap<u32, Vec<usize>> = HashMap::new();
    for (number, wave) in deal.waves.iter().enumerate() {
        assert!((500..700).contains(&wave.len()), "wave {number} has {} rows", wave.len());
        rows[wave.clone()].iter().for_each(|row| met.entry(row.tid.block).or_default().push(number));
    }
    for (block, waves) in met.iter().filter(|(block, _)| **block < 2000) {
        assert!(waves.windows(2).all(|w| w[1] - w[0] == 4), "page {block} is met in waves {waves:?}");
    }
}

#[test]
fn a_batch_has_as_many_rows_as_its_bytes_allow() {
    let rows = |bytes| vec![row(0, 1, bytes); 10];
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
    let rows = vec![row(0, 1, 1 << 20); 10];
    assert_eq!(next_slice(&rows, &(0..10), 1000, 4 << 20), 0..4);
    assert_eq!(next_slice(&rows, &(9..10), 1000, 10), 9..10);
    assert_eq!(next_slice(&rows, &(0..10), 3, usize::MAX), 0..3);
    assert_eq!(next_slice(&rows, &(0..10), 9, usize::MAX), 0..5, "no batch of a single row after it");
}

proptest! {
    /// Waves are folded evenly: no page is met more often in one wave than it must be, whatever others have.
    #[test]
    fn a_wave_holds_as_few_rows_of_a_page_as_can_be(
        pages in prop::collection::vec(1u16..40, 1..40), batch in 1usize..300,
    ) {
        let mut rows: Vec<_> = pages.iter().enumerate()
            .flat_map(|(block, rows)| (1..=*rows).map(move |offset| row(block as u32, offset, 500)))
            .collect();
        let deal = deal(&mut rows, batch, usize::MAX);
        let deepest = usize::from(*pages.iter().max().unwrap());
        let waves = deal.waves.len();
        prop_assert!(waves <= deepest && deal.batch_rows <= batch);
        for wave in &deal.waves {
            let mut of_page = HashMap::new();
            rows[wave.clone()].iter().for_each(|row| *of_page.entry(row.tid.block).or_insert(0) += 1);
            for (block, met) in of_page {
                prop_assert!(met <= usize::from(pages[block as usize]).div_ceil(waves));
            }
        }
    }

    #[test]
    fn slices_cover_a_wave_within_their_limits(
        sizes in prop::collection::vec(0usize..3000, 1..80), max_rows in 1usize..20, max_bytes in 0usize..9000,
    ) {
        let rows: Vec<_> = sizes.iter().enumerate().map(|(i, &size)| row(i as u32, 1, size)).collect();
        let mut at = 0;
        while at < rows.len() {
            let slice = next_slice(&rows, &(at..rows.len()), max_rows, max_bytes);
            prop_assert!(slice.start == at && slice.end > at && slice.len() <= max_rows);
            let bytes: usize = sizes[slice.clone()].iter().sum();
            prop_assert!(slice.len() == 1 || bytes <= max_bytes);
            // As much as fits, shared out evenly: the next row would have been too many.
            let left = rows.len() - at;
            if slice.len() < left.div_ceil(left.div_ceil(max_rows)) {
                prop_assert!(bytes + sizes[slice.end] > max_bytes);
            }
            at = slice.end;
        }
    }

    #[test]
    fn dealing_loses_nothing_and_covers_everything(
        tids in prop::collection::btree_map((0u32..50, 1u16..60), 0usize..4, 0..600), batch in 1usize..200,
    ) {
        let mut rows: Vec<_> =
            tids.iter().map(|(&(block, offset), &size)| row(block, offset, size)).collect();
        let before = rows.clone();
        let dealt = deal(&mut rows, batch, usize::MAX);
        prop_assert_eq!(dealt.waves.iter().map(|w| w.len()).sum::<usize>(), rows.len());
        prop_assert!(dealt.waves.windows(2).all(|w| w[0].end == w[1].start));
        for wave in &dealt.waves {
            prop_assert!(rows[wave.clone()].windows(2).all(|p| p[0].tid < p[1].tid), "not in heap order");
        }
        // A page's rows come largest first, of two alike the first on the page; however they were handed over.
        let mut last: HashMap<u32, (Reverse<usize>, u16)> = HashMap::new();
        for wave in &dealt.waves {
            let mut keys: Vec<_> =
                rows[wave.clone()].iter().map(|r| (r.tid.block, (Reverse(r.on_page), r.tid.offset))).collect();
            keys.sort();
            for (block, key) in keys {
                let before = last.insert(block, key);
                prop_assert!(before.is_none_or(|before| before < key), "page {block}");
            }
        }
        let mut reversed = before.clone();
        reversed.reverse();
        prop_assert_eq!(&deal(&mut reversed, batch, usize::MAX), &dealt);
        prop_assert_eq!(&reversed, &rows);
        rows.sort_by_key(|r| r.tid);
        prop_assert_eq!(rows, before);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The reason for all of it, on the model of a page below.
    #[test]
    fn few_rows_leave_their_page(seed in 0u64..1 << 40, apart in 1usize..3) {
        for (kind, at_most) in [(Kind::Mixed, 1.35), (Kind::Alike, 1.35), (Kind::HalfOutOfLine, 1.9)] {
            let mut rows = heap(kind, 400, seed);
            let pages = 400.0;
            let by_pointer = moves(&rows, &by_pointer(&mut rows.clone()), apart);
            let dealt = deal(&mut rows, 250, usize::MAX);
            let batches: Vec<_> = batches(&rows, &dealt, usize::MAX).into_iter().map(|b| rows[b].to_vec()).collect();
            let by_size = moves(&rows, &batches, apart);
            prop_assert!(by_size as f64 <= at_most * pages, "{kind:?}: {by_size} moves off {pages} pages");
            if kind != Kind::Alike {
                prop_assert!(by_size < by_pointer, "{kind:?}: {by_size} moves, {by_pointer} by line pointer");
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Mixed,
    Alike,
    HalfOutOfLine,
}

/// Bytes of a page for line pointers and row versions; beside its credential a row has about so many on its page.
const PAGE: usize = 8192 - 24;
const BESIDE: usize = 160;

/// What a version takes: its line pointer, and a multiple of eight bytes.
fn takes(row: &Row) -> usize {
    4 + (BESIDE + row.on_page).next_multiple_of(8)
}

/// Pages filled one row after the other, as COPY fills them.
fn heap(kind: Kind, pages: u32, seed: u64) -> Vec<Row> {
    let mut state = seed | 1;
    let mut below = move |end: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % end) as usize
    };
    let (mut rows, mut block, mut offset, mut free) = (Vec::new(), 0, 0, PAGE);
    loop {
        let (size, on_page) = match (kind, below(10)) {
            (Kind::Alike, _) => (504, 504),
            (Kind::HalfOutOfLine, 0..5) => (3000, 18),
            (_, 8) => (100, 104),
            (Kind::Mixed, 9) => (1290, 1294),
            _ => {
                let size = 344 + below(173);
                (size, size + 4)
            }
        };
        let mut next = row(block, offset + 1, size);
        next.on_page = on_page;
        if takes(&next) > free {
            (block, offset, free) = (block + 1, 0, PAGE);
            next.tid = Tid { block, offset: 1 };
        }
        if block == pages {
            return rows;
        }
        free -= takes(&next);
        offset += 1;
        rows.push(next);
    }
}

/// As rows were dealt before: by line pointer, the k-th row of every page into wave k; and cut into batches.
fn by_pointer(rows: &mut [Row]) -> Vec<Vec<Row>> {
    rows.sort_by_key(|row| row.tid);
    let mut waves: Vec<Vec<Row>> = Vec::new();
    for page in rows.chunk_by(|a, b| a.tid.block == b.tid.block) {
        for (rank, row) in page.iter().enumerate() {
            if waves.len() == rank {
                waves.push(Vec::new());
            }
            waves[rank].push(row.clone());
        }
    }
    waves.iter().flat_map(|wave| wave.chunks(250).map(<[Row]>::to_vec)).collect()
}

/// A heap page of PostgreSQL: what is free, what each batch has left dead on it, and the hint that an update found no room.
struct Page {
    free: usize,
    dead: Vec<(usize, usize)>,
    full: bool,
}

/// How many rows leave their page when these batches are written one after the other, and what a batch leaves dead can be
/// pruned from the `apart`-th batch after it on. As heap_page_prune_opt and heap_update do it: a page is pruned where it is
/// met with less than a tenth of it free, or after an update found no room; a HOT update needs one more line pointer, and
/// the old one stays.
fn moves(rows: &[Row], batches: &[Vec<Row>], apart: usize) -> usize {
    let mut pages: HashMap<u32, Page> = HashMap::new();
    for row in rows {
        let page = pages.entry(row.tid.block).or_insert(Page { free: PAGE, dead: Vec::new(), full: false });
        page.free -= takes(row);
    }
    let mut moved = 0;
    for (now, batch) in batches.iter().enumerate() {
        for row in batch {
            let page = pages.get_mut(&row.tid.block).expect("a page of the table");
            if page.full || page.free < 8192 / 10 {
                let before = page.dead.len();
                page.free += page
                    .dead
                    .iter()
                    .filter(|(at, _)| at + apart <= now)
                    .map(|(_, bytes)| bytes)
                    .sum::<usize>();
                page.dead.retain(|(at, _)| at + apart > now);
                page.full &= page.dead.len() == before;
            }
            if takes(row) <= page.free {
                page.free -= takes(row);
            } else {
                (moved, page.full) = (moved + 1, true);
            }
            page.dead.push((now, takes(row) - 4));
        }
    }
    moved
}
