//! `file:PATH`: a file that holds one key and nothing else.
//!
//! Editors and `echo` end files with a line end; exactly one (LF or CRLF) is dropped. Pipes work
//! (`file:/dev/fd/3`), because nothing but reading is asked of the path.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use zeroize::Zeroizing;

use super::{Fetched, KeyProvider, SourceError};

/// Secrets Manager's own limit for a secret value; nothing that is one key is longer.
const MAX_BYTES: usize = 65_536;

/// One file.
pub(super) struct KeyFile<'a>(pub &'a Path);

impl KeyProvider for KeyFile<'_> {
    async fn fetch(&self) -> Result<Fetched, SourceError> {
        let mut value = read_whole("file", self.0)?;
        drop_line_end(&mut value);
        if value.is_empty() {
            return Err(SourceError::Missing {
                source_name: format!("file:{}", self.0.display()),
                what: "the file is empty".into(),
                hint: "write the key into it, or name another source".into(),
            });
        }
        Ok(Fetched::plain(value))
    }
}

/// Drops one LF or CRLF from the end.
pub fn drop_line_end(value: &mut Zeroizing<Vec<u8>>) {
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
}

/// Reads a whole file of at most 64 KiB into one buffer that is wiped and never moved while it grows.
pub(super) fn read_whole(scheme: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let shown = path.display();
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => SourceError::Missing {
            source_name: format!("{scheme}:{shown}"),
            what: "there is no such file".into(),
            hint: format!("create {shown}, or name another source"),
        },
        _ => SourceError::Io { path: shown.to_string(), operation: "read", cause },
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut value = Zeroizing::new(vec![0; MAX_BYTES + 1]);
    let mut filled = 0;
    while filled < value.len() {
        match file.read(&mut value[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
    if filled > MAX_BYTES {
        return Err(SourceError::Malformed {
            source_name: format!("{scheme}:{shown}"),
            what: format!("the file is larger than {MAX_BYTES} bytes"),
            hint: "name the file that holds the key".into(),
        });
    }
    value.truncate(filled);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_line_end_is_dropped_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for (written, want) in
            [("k", "k"), ("k\n", "k"), ("k\r\n", "k"), ("k\n\n", "k\n"), ("k\r", "k\r"), (" k ", " k ")]
        {
            std::fs::write(&path, written).unwrap();
            let got = KeyFile(&path).fetch().await.map(|f| f.value.to_vec()).unwrap();
            assert_eq!(got, want.as_bytes(), "{written:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_named_and_is_a_key_error() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();
        let large = dir.path().join("large");
        std::fs::write(&large, vec![b'x'; MAX_BYTES + 1]).unwrap();
        for path in [dir.path().join("absent"), dir.path().to_path_buf(), empty, large] {
            let e = KeyFile(&path).fetch().await.map(|_| ()).unwrap_err();
            let e = crate::error::Error::from(e);
            assert_eq!(e.exit, crate::error::Exit::Key);
            assert!(e.message.contains(path.to_str().unwrap()), "{e}");
        }
    }
}
