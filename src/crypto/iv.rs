//! Where initialization vectors come from: the operating system's generator, a buffer at a time.

use crate::entropy::{self, NoEntropy};
use crate::error::{Error, Exit};

use super::envelope::{IV_LEN, Iv};

/// IVs drawn per system call: 3 KiB; one call costs about as much as sealing a row.
const BUFFERED: usize = 256;

/// Hands out random IVs, each once. NIST SP 800-38D §8.3 allows 2³² of them under one key.
///
/// Not `Clone`: two copies would hand out the same IVs.
pub struct IvSource {
    buffer: Box<[Iv; BUFFERED]>,
    next: usize,
}

/// The operating system gives no randomness; nothing can be sealed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(transparent)]
pub struct IvError(NoEntropy);

impl IvSource {
    /// An empty buffer; the first [`IvSource::fill`] draws.
    pub fn new() -> Self {
        IvSource { buffer: Box::new([[0; IV_LEN]; BUFFERED]), next: BUFFERED }
    }

    /// The next IV. After an error the next call draws again; no IV of a failed draw is ever handed out.
    pub fn fill(&mut self) -> Result<Iv, IvError> {
        if self.next == BUFFERED {
            entropy::fill(self.buffer.as_flattened_mut()).map_err(IvError)?;
            self.next = 0;
        }
        let iv = self.buffer[self.next];
        self.next += 1;
        Ok(iv)
    }
}

impl Default for IvSource {
    fn default() -> Self {
        IvSource::new()
    }
}

impl From<IvError> for Error {
    fn from(error: IvError) -> Self {
        Error::new(Exit::Internal, error.to_string())
            .hint("Nothing was encrypted. Make /dev/urandom and getrandom(2) available to this process")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ivs_do_not_repeat_within_or_across_buffers() {
        let mut source = IvSource::new();
        let ivs: HashSet<Iv> = (0..3 * BUFFERED + 1).map(|_| source.fill().unwrap()).collect();
        assert_eq!(ivs.len(), 3 * BUFFERED + 1);
        assert!(!ivs.contains(&[0; IV_LEN]));
    }
}
