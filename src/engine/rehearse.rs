//! Measures this database: real UPDATEs of real rows with real ciphertexts, in transactions that are rolled back.
//! Nothing remains but WAL, and dead row versions: pruning removes them, and the space they took stays with the table.

use std::time::Instant;

use sqlx::PgConnection;
use uuid::Uuid;

use super::fault::Fault;
use super::row::{Recrypt, Rewrapped};
use super::writer::MAX_BATCH_BYTES;
use crate::crypto::Rewrapper;
use crate::error::Error;
use crate::rotation::{Rehearsal, deal, next_slice};
use crate::store::facts;
use crate::store::rehearsal;
use crate::store::rows::{self, READ_ROWS, Stretch, Write};
use crate::store::signals::wal_position;
use crate::store::{Class, Connector, Purpose, StoreError};

/// Rows held at a time.
const PART: usize = 12_000;
/// Rows of one place in the table, at least: as many as fill a few waves.
const PLACE: u64 = 2500;
/// The most places that are rehearsed.
const PLACES: u64 = 8;

/// Rehearses with about `rows` rows, from the table's first to its last: what was saved first may be unlike the rest.
pub async fn rehearse(
    connector: &Connector,
    rewrapper: &Rewrapper,
    rows: u64,
    batch_rows: u32,
) -> Result<Rehearsal, Error> {
    let mut conn = connector.connect(Purpose::Write).await?;
    let mut total = Rehearsal::default();
    let size = size(&mut conn).await?;
    let from = wal_position(&mut conn).await?;
    let started = Instant::now();
    let mut places = places(&mut conn, rows).await?;
    while let Some(mut place) = places.pop() {
        let until = rows - total.rows.min(rows);
        let mut left = until.div_ceil(places.len() as u64 + 1);
        while left > 0 {
            let part = match read(&mut conn, rewrapper, &mut place, PART.min(left as usize)).await {
                Ok(part) if part.is_empty() => break,
                Ok(part) => part,
                Err(Fault::Store(e)) => return Err(e.into()),
                Err(Fault::Fatal(e)) => return Err(e),
                Err(Fault::LeaseLost | Fault::Yield) => break,
            };
            left -= (part.len() as u64).min(left);
            write_and_roll_back(connector, &mut conn, part, batch_rows, &mut total).await?;
        }
    }
    total.elapsed = started.elapsed();
    total.wal_bytes = (wal_position(&mut conn).await? - from).max(0) as u64;
    total.grown_bytes = (self::size(&mut conn).await? - size).max(0) as u64;
    Ok(total)
}

/// Keys after one, up to and with another.
struct Place {
    after: Option<Uuid>,
    to: Uuid,
}

/// Where to rehearse: the last place first. All of the table is one place where that is not known, or not worth it.
async fn places(conn: &mut PgConnection, rows: u64) -> Result<Vec<Place>, StoreError> {
    let wanted = (rows / PLACE).clamp(1, PLACES) as usize;
    let bounds = if wanted > 1 && (rows as f64) < facts::table(conn).await?.rows {
        facts::parting_ids(conn).await?
    } else {
        Vec::new()
    };
    let starts = (1..wanted).filter_map(|n| bounds.get(n * bounds.len() / wanted)).copied();
    let starts: Vec<Uuid> = starts.collect();
    let firsts = std::iter::once(None).chain(starts.iter().copied().map(Some));
    let lasts = starts.iter().copied().chain([Uuid::max()]);
    let mut places: Vec<Place> = firsts.zip(lasts).map(|(after, to)| Place { after, to }).collect();
    places.reverse();
    Ok(places)
}

/// Of the table and its indexes, in bytes.
async fn size(conn: &mut PgConnection) -> Result<i64, StoreError> {
    facts::table(conn).await.map(|facts| facts.heap_bytes + facts.index_bytes)
}

async fn write_and_roll_back(
    connector: &Connector,
    conn: &mut PgConnection,
    mut part: Vec<Write>,
    batch_rows: u32,
    total: &mut Rehearsal,
) -> Result<(), StoreError> {
    let mut most = batch_rows as usize;
    let dealt = deal(&mut part, most, MAX_BATCH_BYTES);
    most = most.min(dealt.batch_rows);
    for mut wave in dealt.waves {
        while !wave.is_empty() {
            let slice = next_slice(&part, &wave, most, MAX_BATCH_BYTES);
            let (start, rows) = (slice.start, slice.len());
            wave.start = slice.end;
            let began = Instant::now();
            let mut batch = rehearsal::Rehearsal::begin(conn, connector).await?;
            let written = batch.write(&part[slice]).await;
            batch.roll_back().await?;
            match written {
                Ok(_) => total.rows += rows as u64,
                // Too much for this server: a run would write less at a time.
                Err(e) if e.class() == Class::TookTooLong && rows > 1 => {
                    (most, wave.start) = (rows / 2, start);
                    continue;
                }
                // Another session holds a row: a rehearsal gives way.
                Err(e) if matches!(e.class(), Class::LockTimeout | Class::Retry | Class::TookTooLong) => {}
                Err(e) => return Err(e),
            }
            total.longest_batch = total.longest_batch.max(began.elapsed());
        }
    }
    Ok(())
}

async fn read(
    conn: &mut PgConnection,
    rewrapper: &Rewrapper,
    place: &mut Place,
    want: usize,
) -> Result<Vec<Write>, Fault> {
    let mut recrypt = Recrypt::new();
    let mut part = Vec::new();
    while part.len() < want {
        let limit = READ_ROWS.min((want - part.len()) as i64);
        let hi = place.to;
        let stretch = match place.after {
            None => Stretch::FromStart { hi, limit },
            Some(lo) => Stretch::After { lo, hi, limit },
        };
        let seen = rows::read(conn, &stretch, |row| {
            if row.envelope.is_some()
                && let Rewrapped::Move(write) = recrypt.row(rewrapper, row)?
            {
                part.push(write);
            }
            Ok::<(), Fault>(())
        })
        .await?;
        place.after = seen.last.map(|(id, _)| id).or(place.after);
        if seen.rows < limit {
            break;
        }
    }
    Ok(part)
}
