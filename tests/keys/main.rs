//! `rekey keys` as a process: real files, a real Secrets Manager emulator, a real PostgreSQL, and the real gpg.

#[path = "../support/mod.rs"]
mod support;
#[path = "../support_aws/mod.rs"]
mod support_aws;

mod aws_settings;
mod backup;
mod dotenv;
mod generate;
mod guard;
mod quiet;
mod secret_key;
mod secrets;
mod validate;

use support::{Rekey, rekey_without_database};
use support_aws::Moto;

/// `rekey …` against an emulated Secrets Manager.
fn on_aws<const N: usize>(moto: &Moto, arguments: [&str; N]) -> Rekey {
    rekey_without_database(arguments)
        .env("AWS_ENDPOINT_URL", &moto.url)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("SECRETS_BACKEND", "aws")
        .env("AWS_SECRET_NAME", "dashtam/production")
}

/// What `rekey keys fingerprint` says of a source.
fn fingerprint(rekey: Rekey) -> String {
    rekey.json(0)["fingerprint"].as_str().unwrap().to_owned()
}
