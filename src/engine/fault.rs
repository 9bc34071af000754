//! What can end a piece of work early.

use crate::crypto::{IvError, ProofFailure};
use crate::error::Error;
use crate::store::StoreError;

/// Why a chunk was not finished.
#[derive(Debug)]
pub enum Fault {
    /// The database failed; what to do depends on its class.
    Store(StoreError),
    /// Someone took the chunk over: discard everything about it.
    LeaseLost,
    /// Asked to stop or pause between batches.
    Yield,
    /// The process must end.
    Fatal(Error),
}

impl From<StoreError> for Fault {
    fn from(e: StoreError) -> Self {
        Fault::Store(e)
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault::Fatal(e)
    }
}

impl From<ProofFailure> for Fault {
    fn from(e: ProofFailure) -> Self {
        Fault::Fatal(e.into())
    }
}

impl From<IvError> for Fault {
    fn from(e: IvError) -> Self {
        Fault::Fatal(e.into())
    }
}
