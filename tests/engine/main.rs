//! The engine from outside: the real binary on a real PostgreSQL, judged with independent cryptography.
//!
//! One file per theme; `cargo test --test engine kill::` runs one of them. All share one cluster and each has a
//! database of its own, except where a server is stopped: those tests start one for themselves. State is waited for
//! by looking at the database, and a fixed time is slept only where time itself is what is tested.

#[path = "../support/mod.rs"]
mod support;

mod accept; // what an acceptance needs, and what it is refused for
mod beside_triggers; // triggers of the application that fire in rekey's transactions
mod clean_run; // a run without trouble: every shape of data, true numbers
mod commit; // COMMITs whose answer never comes
mod counted; // totals are exact, after kills and beside writers
mod damaged; // a value that the server itself cannot read
mod exhausted; // no disk, no WAL, no connection left
mod exit_codes; // each public exit code, once; forms of DATABASE_URL
mod hostile; // tables with the name and not the shape, lacking privileges, huge values
mod keys; // wrong keys: exit 3, nothing written, nothing echoed
mod kill; // SIGKILL again and again, then one more run
mod locks; // beside the application's locks; never a deadlock's victim
mod lost_commits; // commits lost by a crash or a failover, transaction ids used again
mod memory; // keys in the memory of a live process
mod model; // generated histories against a model
mod no_fault_points; // fault points are in a test build only
mod obeys; // orders reach a process whatever statement is under way
mod outage; // the database goes away
mod passwords; // the password rotates under a run
mod person; // who did it, and why: asked for in Kubernetes
mod pooled; // a pooler in transaction mode
mod preflight; // what run and plan refuse, with name and remedy
mod processes; // several processes on one table; leases
mod quarantine; // rows that neither key decrypts; large rows
mod quiet; // no secret in output, logs, tables, arguments
mod replica; // a hot standby: reading, dry run, refusals
mod restored; // a ledger restored from a dump
mod retention; // proofs of a rotation that is over are removed
mod rewritten; // VACUUM FULL under a run that walks by blocks
mod rollback; // the way back, killed midway, rows written since
mod scale; // what must not grow with the table: memory, disk
mod settings; // environment, and settings of role or database
mod signals; // SIGTERM ends every command within ten seconds
mod states; // what each command does in each state
mod support_works; // the tests' own judge finds what is wrong
mod surroundings; // server settings, replication, other sessions: findings
mod throttle; // each throttle signal, on real servers
mod trail; // who may append to the audit trail, and what counts only with its event
mod transactions; // short transactions: HOT, pruning
mod unindexed; // rows that the primary key's index does not lead to
mod verify; // verify proves, row by row
mod versions; // PostgreSQL 15 to 18
mod waits; // waiting costs next to nothing, and says for what
mod weather; // hostile session defaults, old snapshots, maintenance, a locked table
mod writer; // the application writes on beside a run
