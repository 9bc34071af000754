//! What of `store` reads text. `dsn` is linked here because its own submodules are looked for beside it.

mod dsn;

pub use dsn::{Dsn, DsnError};
