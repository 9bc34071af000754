//! AWS Secrets Manager: reading versions, moving labels, and replacing what is current without losing anything.
//!
//! Every primitive is idempotent: killed anywhere and called again, it ends in the same place. What is not here:
//! when to call which (the rotation's states) and whether a value is the right key (fingerprints).
//!
//! Values are wiped in our own buffers. The SDK's request and response buffers are its own and are not; they are
//! short-lived, and core dumps are off.

mod client;
mod edit;
mod explain;
mod json_field;
mod labels;
mod lifecycle;
mod replace;
mod settings;
mod temporary;
mod value;

pub use client::{ClientSettings, SecretsManager, refuse_sensitive_logging};
pub use edit::{EditError, edited, is_object};
pub use json_field::{JsonFieldError, read_field, read_string, replace_field};
pub use labels::{
    MAX_LABELS, SecretInfo, former_label, id8, is_pin, keeps_former_key, new_pin, old_pin, promote_label,
    retired_label, rollback_label,
};
pub use lifecycle::{AS_USUAL, Creation, Deletion, Stored};
pub use replace::{Action, Current, Replacement, Seen, request_token};
pub use temporary::{Stays, labels_keep, other_pin};
pub use value::{At, Form, SecretVersion};

pub(super) use client::LazyClient;
pub(super) use value::SecretValue;
