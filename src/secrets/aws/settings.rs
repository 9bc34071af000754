//! AWS's own settings, looked at before the SDK is: it panics at some, and blames the credentials for others.

use std::path::PathBuf;

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::config::{ProvideCredentials, SharedHttpClient};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::Url;

use super::super::SourceError;

/// What goes into the head of a request, or says where it goes.
const VARIABLES: [&str; 9] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_CA_BUNDLE",
    ENDPOINT,
    ENDPOINT_OF_SERVICE,
];
const ENDPOINT: &str = "AWS_ENDPOINT_URL";
const ENDPOINT_OF_SERVICE: &str = "AWS_ENDPOINT_URL_SECRETS_MANAGER";

fn config(what: impl Into<String>, hint: impl Into<String>) -> SourceError {
    SourceError::Config { what: what.into(), hint: hint.into() }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Refuses variables that no request could be made with, and a profile that does not exist.
pub(super) fn check() -> Result<(), SourceError> {
    for name in VARIABLES {
        let Some(value) = std::env::var_os(name) else { continue };
        let text = value.to_string_lossy();
        if text.chars().any(char::is_control) {
            return Err(config(
                format!("{name} holds a line end or another control character"),
                format!("Set {name} without it: `printf %s` writes no line end, `echo` does"),
            ));
        }
    }
    for name in [ENDPOINT, ENDPOINT_OF_SERVICE] {
        variable(name).map_or(Ok(()), |url| endpoint(name, &url))?;
    }
    match variable("AWS_PROFILE") {
        Some(profile) if !profile_exists(&profile) => Err(config(
            format!("AWS_PROFILE names profile {profile:?}, and no file of the AWS CLI has it"),
            "`aws configure list-profiles` lists those there are; AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name other files",
        )),
        _ => Ok(()),
    }
}

/// Refuses what was read from the files of the AWS CLI and could not be used.
pub(super) async fn check_loaded(loaded: &SdkConfig) -> Result<(), SourceError> {
    let Some(region) = loaded.region() else {
        return Err(config("the AWS region is not known", "set AWS_REGION to the region the secret is in"));
    };
    if !region.as_ref().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(config(
            "the AWS region is not the name of a region",
            "set AWS_REGION, or `region` in the profile, to a name like eu-central-1",
        ));
    }
    if let Some(url) = loaded.endpoint_url() {
        endpoint(ENDPOINT, url)?;
    }
    // What a program prints is put into the head of each request as it is.
    if mention("credential_process")
        && let Some(provider) = loaded.credentials_provider()
        && let Ok(found) = provider.provide_credentials().await
    {
        let texts = [Some(found.access_key_id()), Some(found.secret_access_key()), found.session_token()];
        if texts.into_iter().flatten().any(|text| text.chars().any(char::is_control)) {
            return Err(config(
                "credential_process returns credentials with a line end or another control character",
                "Let the program of `credential_process` print them without it",
            ));
        }
    }
    Ok(())
}

/// It may hold a password, so it is not shown.
fn endpoint(name: &str, url: &str) -> Result<(), SourceError> {
    let usable = Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match usable {
        true => Ok(()),
        false => Err(config(
            format!("{name} is no URL of an HTTP server"),
            format!("{name}=https://secretsmanager.REGION.amazonaws.com, or unset it"),
        )),
    }
}

/// A client that trusts the certificates in AWS_CA_BUNDLE and no others, as the AWS CLI does.
pub(super) fn bundle() -> Result<Option<SharedHttpClient>, SourceError> {
    let Some(path) = variable("AWS_CA_BUNDLE") else { return Ok(None) };
    let pem = std::fs::read(&path).map_err(|cause| {
        config(
            format!("cannot read the certificates in AWS_CA_BUNDLE, {path}: {cause}"),
            "name a readable file of them",
        )
    })?;
    let mut certificates = CertificateDer::pem_slice_iter(&pem);
    if certificates.next().is_none_or(|first| first.is_err()) || certificates.any(|more| more.is_err()) {
        return Err(config(
            format!("AWS_CA_BUNDLE, {path}, holds no certificates in PEM form"),
            "name a file of certificates, each between BEGIN CERTIFICATE and END CERTIFICATE",
        ));
    }
    let trusted =
        TlsContext::builder().with_trust_store(TrustStore::empty().with_pem_certificate(pem)).build();
    let trusted = trusted.map_err(|_| config("AWS_CA_BUNDLE cannot be used", "name another file in it"))?;
    let client = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
    Ok(Some(client.tls_context(trusted).build_https()))
}

/// The files of the AWS CLI, where they can be read.
fn files() -> impl Iterator<Item = String> {
    let home = variable("HOME").map(PathBuf::from).unwrap_or_default();
    let at = |name: &str, usual: &str| variable(name).map_or_else(|| home.join(usual), PathBuf::from);
    let files = [at("AWS_CONFIG_FILE", ".aws/config"), at("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")];
    files.into_iter().filter_map(|file| std::fs::read_to_string(file).ok())
}

fn mention(word: &str) -> bool {
    files().any(|text| text.contains(word))
}

fn profile_exists(profile: &str) -> bool {
    let is_header = |line: &str| {
        let inner = line.trim().strip_prefix('[').and_then(|rest| rest.split(']').next());
        let name = inner.map(|inner| inner.trim().strip_prefix("profile").map_or(inner, |name| name).trim());
        name.is_some_and(|name| name == profile || name.trim_matches('"') == profile)
    };
    profile == "default" || files().any(|text| text.lines().any(is_header))
}
