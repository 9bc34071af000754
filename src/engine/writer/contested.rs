//! Rows that were changed or held when their batch came: read again and taken as they become free, until each is settled.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Writer;
use super::batch::{Batch, Begin};
use crate::crypto::Tag;
use crate::engine::fault::Fault;
use crate::engine::row::{PutAside, Rewrapped, by_bytes, read_large};
use crate::error::{Error, Exit};
use crate::rotation::{Bounds, Counters, PassKind, QuarantineReason, Tid};
use crate::store::connect::jitter;
use crate::store::ledger::Lease;
use crate::store::ledger::proof;
use crate::store::ledger::quarantine::BadRow;
use crate::store::rows::{FreeWrites, Write};
use crate::store::{Class, Xid, index};

/// Rows that another session holds for longer than this are postponed, so that the rest of the table does not wait.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same of stragglers, which are listed by name. Rows that were put off before are looked at, and not waited for.
const PATIENCE_FOR_STRAGGLERS: Duration = Duration::from_millis(300);
/// More rows than this are not put off: then the table as a whole is held, and going on would meet the same.
const MAX_PUT_OFF: usize = 1000;

/// A row's version as it was opened: who wrote it, and its IV.
pub(super) type Version = (Xid, [u8; 12]);

/// Rows whose batch was contested: as each was read.
pub(super) type Contested = HashMap<Uuid, Seen>;

/// The version that was to be replaced, its place, and the tag that goes with it.
pub(super) struct Seen {
    version: Version,
    at: Tid,
    tag: Tag,
}

impl From<&Write> for Seen {
    fn from(row: &Write) -> Seen {
        Seen { version: (row.xmin, row.iv), at: row.tid, tag: row.tag }
    }
}

/// A row that could not be written at once.
struct Attempt {
    seen: Option<Version>,
    at: Option<Tid>,
    unmoved: u32,
}

/// What contested rows turned out to be, beside those written.
#[derive(Default)]
pub(super) struct Left {
    pub counters: Counters,
    pub quarantine: Vec<BadRow>,
    pub put_off: Vec<Uuid>,
}

impl Writer {
    /// Rows that were changed or held when their batch came: read again, and take what is free, until each is
    /// settled one way or another.
    pub(super) async fn contend(
        &mut self,
        lease: &Lease,
        ids: Vec<Uuid>,
        seen: &Contested,
        left: &mut Left,
    ) -> Result<(), Fault> {
        let mut pending: HashMap<Uuid, Attempt> = ids
            .into_iter()
            .map(|id| {
                let seen = seen.get(&id);
                (id, Attempt { seen: seen.map(|s| s.version), at: seen.map(|s| s.at), unmoved: 0 })
            })
            .collect();
        let listed = matches!(lease.bounds(), Bounds::Ids(_));
        let patience = match lease.pass().kind {
            _ if !listed => PATIENCE,
            PassKind::Sweep => PATIENCE_FOR_STRAGGLERS,
            PassKind::Full => Duration::ZERO,
        };
        let mut pause = Duration::from_millis(10);
        let (mut moved, mut looked) = (Instant::now(), false);
        while !pending.is_empty() {
            self.go_on()?;
            if listed || moved.elapsed() > patience / 2 {
                self.gate.crew.stuck(lease.owner().worker, pending.keys().copied().take(5).collect());
            }
            if looked && moved.elapsed() > patience && pending.len() <= MAX_PUT_OFF {
                tracing::info!(rows = pending.len(), "Rows held by another session; postponed");
                left.put_off.extend(pending.into_keys());
                return Ok(());
            }
            let before = pending.len();
            let (mut batch, sizes) = self.read_again(lease, &mut pending, left).await?;
            // The reader may know better what a version held before the rotation than its bytes tell.
            for (id, write) in &mut batch {
                if let Some(seen) = seen.get(id).filter(|seen| seen.version == (write.xmin, write.iv)) {
                    write.tag = seen.tag;
                }
            }
            for group in by_bytes(sizes, self.servo.bytes()) {
                let part: Vec<&Write> = group.iter().filter_map(|id| batch.get(id)).collect();
                for part in part.chunks(self.gate.batch_rows(self.servo.rows())) {
                    self.gate.pass(part.len()).await?;
                    self.take_free(lease, part, &mut pending, left).await?;
                }
            }
            looked = true;
            if pending.len() < before {
                moved = Instant::now();
            } else if pending.len() > MAX_PUT_OFF && moved.elapsed() > patience {
                self.wait_in_line().await?;
            } else {
                tokio::time::sleep(jitter(pause)).await;
                pause = (pause * if listed { 4 } else { 2 }).min(Duration::from_secs(1));
            }
        }
        self.locked_out = None;
        Ok(())
    }

    /// The table as a whole is held: one worker of the process tries again for all of them.
    pub(super) async fn wait_in_line(&mut self) -> Result<(), Fault> {
        let (crew, mut gate) = (self.gate.crew.clone(), self.gate.clone());
        tokio::select! {
            () = crew.locked_out(&mut self.locked_out) => {}
            () = gate.shut() => {}
        }
        self.go_on()
    }

    async fn read_again(
        &mut self,
        lease: &Lease,
        pending: &mut HashMap<Uuid, Attempt>,
        left: &mut Left,
    ) -> Result<(HashMap<Uuid, Write>, Vec<PutAside>), Fault> {
        let (mut batch, mut sizes) = (HashMap::new(), Vec::new());
        let (mut settled, mut on_target) = (Vec::new(), Vec::new());
        let ids = pending.keys().copied().collect();
        let mut found = HashSet::new();
        {
            let (keys, recrypt, lost) = (&self.job.rewrapper, &mut self.recrypt, &mut self.lost);
            read_large(&mut self.conn, ids, |row| {
                let id = row.id;
                found.insert(id);
                match recrypt.row(keys, row)? {
                    Rewrapped::Move(write) => {
                        sizes.push((id, write.envelope.len()));
                        batch.insert(id, write);
                    }
                    Rewrapped::OnTarget { xmin, .. } => {
                        on_target.push(xmin);
                        settled.push(id);
                    }
                    Rewrapped::Null { .. } => {
                        *lost += 1;
                        left.counters.null_rows += 1;
                        settled.push(id);
                    }
                    Rewrapped::Bad(row) => {
                        left.quarantine.push(row);
                        settled.push(id);
                    }
                }
                Ok::<(), Fault>(())
            })
            .await?;
        }
        if !on_target.is_empty() {
            // If the heap was rewritten between two reads, a row is read twice: then rekey has re-encrypted it.
            let (pass, xmins) = (lease.pass(), on_target.iter().copied().collect());
            let ours = proof::ours(&mut self.conn, pass.rotation, Some(pass.direction), &xmins).await?;
            let others = on_target.iter().filter(|x| !ours.contains(x)).count() as i64;
            self.lost += others;
            left.counters.already_on_key += others;
        }
        self.let_go_of_deleted(pending, &found).await?;
        for id in settled {
            pending.remove(&id);
        }
        // The version and IV that were opened decide whether a row that did not move was changed, or is immovable.
        for (id, attempt) in pending.iter_mut() {
            let Some(write) = batch.get(id) else { continue };
            let now = (write.xmin, write.iv);
            attempt.at = Some(write.tid);
            match attempt.seen {
                Some(seen) if seen == now => {}
                Some(_) => {
                    self.lost += 1;
                    attempt.unmoved = 0;
                }
                None => {}
            }
            attempt.seen = Some(now);
        }
        Ok((batch, sizes))
    }

    /// What is not found by id was deleted, unless it is at its place all the same.
    async fn let_go_of_deleted(
        &mut self,
        pending: &mut HashMap<Uuid, Attempt>,
        found: &HashSet<Uuid>,
    ) -> Result<(), Fault> {
        let missing = pending.iter().filter(|(id, _)| !found.contains(id));
        let places: Vec<Tid> = missing.filter_map(|(_, attempt)| attempt.at).collect();
        if !places.is_empty() {
            let mut unknown = index::unknown(&mut self.conn, &places).await?;
            unknown.retain(|id| pending.contains_key(id));
            index::refuse(&mut self.conn, &unknown).await?;
        }
        pending.retain(|id, _| found.contains(id));
        Ok(())
    }

    async fn take_free(
        &mut self,
        lease: &Lease,
        part: &[&Write],
        pending: &mut HashMap<Uuid, Attempt>,
        left: &mut Left,
    ) -> Result<(), Fault> {
        match self.attempt_free(lease, part).await {
            Ok(FreeWrites { free, written, .. }) => {
                for id in &written {
                    pending.remove(id);
                }
                for id in free.iter().filter(|id| !written.contains(id)) {
                    let Some(attempt) = pending.get_mut(id) else { continue };
                    attempt.unmoved += 1;
                    if attempt.unmoved > 2 {
                        return Err(Error::new(
                            Exit::Preflight,
                            format!(
                                "UPDATE of row {id} has no effect: a trigger or row-level security \
                                policy suppresses it"
                            ),
                        )
                        .hint(
                            "Run `rekey plan` and read findings user-triggers and row-security. Disable \
                            what suppresses the UPDATE, then run the same command again",
                        )
                        .into());
                    }
                }
                Ok(())
            }
            // This statement waits for no lock: if it was cut off, the server was slow.
            Err(Fault::Store(e)) if matches!(e.class(), Class::LockTimeout | Class::Retry) => {
                Ok(self.roll_back().await?)
            }
            // Bisect to the row the server rejects.
            Err(Fault::Store(e)) if e.class() == Class::Data => {
                self.roll_back().await?;
                if let [row] = part {
                    tracing::warn!(id = %row.id, error = %e, "The server rejects this row");
                    let length = row.envelope.len() as i32;
                    left.quarantine.push(BadRow { id: row.id, reason: QuarantineReason::Rejected, length });
                    pending.remove(&row.id);
                    return Ok(());
                }
                let (a, b) = part.split_at(part.len() / 2);
                Box::pin(self.take_free(lease, a, pending, left)).await?;
                Box::pin(self.take_free(lease, b, pending, left)).await
            }
            Err(e) => Err(e),
        }
    }

    async fn attempt_free(&mut self, lease: &Lease, part: &[&Write]) -> Result<FreeWrites, Fault> {
        let mut batch = Batch::begin(&mut self.conn, &self.job, lease, Begin::Plain).await?;
        let done = batch.write_free(part).await?;
        if let [id, ..] = done.altered[..] {
            batch.roll_back().await?;
            return Err(Error::new(
                Exit::Preflight,
                format!("row {id} does not hold what rekey wrote: a trigger changes encrypted_credentials"),
            )
            .hint(
                "Run `rekey plan` and read finding user-triggers. Disable that trigger, then run the same \
                command again",
            )
            .into());
        }
        if done.written.is_empty() {
            batch.roll_back().await?;
            return Ok(done);
        }
        let by_id: HashMap<Uuid, &Write> = part.iter().map(|w| (w.id, *w)).collect();
        let written = done.written.iter().filter_map(|id| by_id.get(id).copied());
        let (noted, timing) = batch.commit(written, self.lost).await?;
        self.committed(timing, &noted)?;
        Ok(done)
    }
}
