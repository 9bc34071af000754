//! `rekey keys generate --stdout`: new keys for whoever reads stdout, a terminal never.

use std::io::{IsTerminal, Write as _};

use zeroize::Zeroizing;

use super::super::context::Context;
use super::super::envelope::{Document, beginning};
use crate::engine::Stop;
use crate::error::{Error, Exit, Result};
use crate::jobs::keys::generate::to_hand_out;
use crate::secrets::AppKey;

/// Bare for one key, so that `"$(…)"` works; a dotenv file's lines for both.
pub async fn print_new(kind: Option<AppKey>, context: &Context, stop: &mut Stop) -> Result<Exit> {
    if std::io::stdout().is_terminal() {
        return Err(Error::new(
            Exit::Usage,
            "rekey does not print keys on a terminal, because its scrollback would keep them",
        )
        .hint("Redirect stdout to a file or pipe, or use `--env-file PATH` or `--to SOURCE`"));
    }
    let new = to_hand_out(context, kind, stop).await?;
    // No buffer with a key in it is left behind by growing.
    let mut out = Zeroizing::new(Vec::with_capacity(2048));
    let fields = |out: &mut Vec<u8>| {
        for (n, (which, value)) in new.keys.iter().enumerate() {
            let (before, between, after) = match (context.json(), kind) {
                (true, _) => (if n == 0 { "\"" } else { ",\"" }, "\":\"", "\""),
                (false, None) => ("", "=", "\n"),
                (false, Some(_)) => ("", "", "\n"),
            };
            let name = if between.is_empty() { "" } else { which.variable() };
            for part in [before.as_bytes(), name.as_bytes(), between.as_bytes(), value, after.as_bytes()] {
                out.extend_from_slice(part);
            }
        }
    };
    if context.json() {
        out.extend_from_slice(format!("{},", beginning(context.command())?).as_bytes());
        fields(&mut out);
        out.extend_from_slice(b",\"result\":{");
        fields(&mut out);
        let document = Document::without_result(Exit::Ok).head(new.head.as_deref());
        out.extend_from_slice(format!("}},{}\n", document.rest()?).as_bytes());
    } else {
        fields(&mut out);
    }
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(&out).and_then(|()| stdout.flush());
    written.map_err(|e| Error::new(Exit::Usage, format!("can't write the keys: {e}")))?;
    // Stdout is the keys' alone.
    if let Some(head) = new.head {
        eprintln!("audit chain head: {head}");
    }
    Ok(Exit::Ok)
}
