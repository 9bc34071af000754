//! What of `secrets` reads text.

#[path = "../../../src/secrets/error.rs"]
mod error;
#[path = "../../../src/secrets/aws/json_field.rs"]
mod json_field;
#[path = "../../../src/secrets/dotenv/lines/mod.rs"]
mod lines;
#[path = "../../../src/secrets/source/mod.rs"]
mod source;

pub use error::SourceError;
pub use source::{AwsSource, KeySource};

pub mod aws {
    pub use super::json_field::{read_field, replace_field};
}

pub mod dotenv {
    pub use super::lines::{DotenvFile, LineError};
}
