//! What Secrets Manager answers when it does not work, and the exit code of each.

use std::time::{Duration, Instant};

use aws_config::{
    Region, environment::EnvironmentVariableCredentialsProvider, meta::credentials::CredentialsProviderChain,
};
use aws_sdk_secretsmanager::config::SharedCredentialsProvider;
use rekey::{
    error::{Error, Exit},
    secrets::{
        KeySource, Sources,
        aws::{ClientSettings, SecretsManager},
    },
};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::any};

use crate::support_aws::{limits, settings};

const SECRET: &str = "canary-canary-canary-canary-cana";

fn fault(status: u16, code: &str, message: &str) -> ResponseTemplate {
    ResponseTemplate::new(status)
        .insert_header("x-amzn-errortype", code)
        .set_body_string(format!(r#"{{"__type":"{code}","Message":"{message}"}}"#))
}

fn found() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_string(format!(
        r#"{{"ARN":"arn:s","VersionId":"0193b3b0-7d3e-7c1a-9a52-0d1e2f3a4b5c","SecretString":"{SECRET}"}}"#
    ))
}

async fn fetch(server: &MockServer, attempts: u32) -> Result<Vec<u8>, Error> {
    // The SDK's adaptive retries remember throttling for a region: a region of its own for each server.
    let region = Region::new(format!("test-{}", server.address().port()));
    let config = settings(&server.uri()).into_builder().region(region).build();
    let limits =
        ClientSettings { attempt: Duration::from_secs(4), operation: Duration::from_secs(20), attempts };
    let sources = Sources::with_client(SecretsManager::new(&config, limits));
    let source = KeySource::parse("aws:dashtam/production/encryption_key").unwrap();
    sources.fetch(&source).await.map(|f| f.value.to_vec()).map_err(Error::from)
}

async fn answering(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

#[tokio::test]
async fn each_fault_has_its_code_and_says_what_to_do() {
    let denied =
        "User: arn:aws:sts::1:assumed-role/app is not authorized to perform: secretsmanager:GetSecretValue";
    let truncated = format!(r#"{{"ARN":"arn:s","VersionId":"v","SecretString":"{SECRET}"#);
    let cases = [
        (fault(400, "AccessDeniedException", denied), Exit::Key, "secretsmanager:GetSecretValue"),
        (fault(400, "AccessDeniedException", "Access to KMS is not allowed"), Exit::Key, "kms:Decrypt"),
        (
            fault(400, "AccessDeniedException", &format!("{denied} on resource: prod/KMS/key")),
            Exit::Key,
            "secretsmanager:GetSecretValue on",
        ),
        (
            fault(
                400,
                "AccessDeniedException",
                "User: x is not authorized to perform: kms:Decrypt on this resource",
            ),
            Exit::Key,
            "kms:Decrypt",
        ),
        (fault(400, "ResourceNotFoundException", "no"), Exit::Key, "AWS_REGION"),
        (fault(400, "DecryptionFailure", "no"), Exit::Key, "DecryptionFailure"),
        (fault(400, "ValidationException", &format!("Value '{SECRET}'")), Exit::Key, "ValidationException"),
        (fault(400, "ExpiredTokenException", "no"), Exit::Usage, "ExpiredTokenException"),
        (fault(400, "ThrottlingException", "slow"), Exit::Unavailable, "ThrottlingException"),
        (fault(500, "InternalServiceError", "no"), Exit::Unavailable, "InternalServiceError"),
        (ResponseTemplate::new(503), Exit::Unavailable, "503"),
        (ResponseTemplate::new(200).set_body_string(truncated), Exit::Unavailable, "response is unreadable"),
        (
            ResponseTemplate::new(200).set_body_string("<html>proxy</html>"),
            Exit::Unavailable,
            "response is unreadable",
        ),
        (ResponseTemplate::new(200).set_body_string("{}"), Exit::Unavailable, "incomplete"),
        (found().set_delay(Duration::from_secs(5)), Exit::Unavailable, "in time"),
    ];
    futures::future::join_all(cases.map(|(answer, exit, words)| async move {
        let shown = format!("{answer:?}");
        let server = answering(answer).await;
        let began = Instant::now();
        let error = fetch(&server, 2).await.unwrap_err();
        assert_eq!(error.exit, exit, "{shown}: {error:?}");
        let text = format!("{error:?}");
        assert!(text.contains(words), "{shown}: {text}");
        assert!(!text.contains("canary"), "{text}");
        assert!(began.elapsed() < Duration::from_secs(21), "{shown}: {:?}", began.elapsed());
    }))
    .await;
}

#[tokio::test]
async fn throttling_that_ends_is_not_noticed() {
    let server = MockServer::start().await;
    Mock::given(any())
        .respond_with(fault(400, "ThrottlingException", "slow"))
        .up_to_n_times(2)
        .mount(&server)
        .await;
    Mock::given(any()).respond_with(found()).mount(&server).await;
    assert_eq!(fetch(&server, 4).await.unwrap(), SECRET.as_bytes());
}

#[tokio::test]
async fn nobody_listening_is_unavailable() {
    // A port that was free a moment ago may be another test's server by now; the system gives nobody port 1.
    let client = SecretsManager::new(&settings("http://127.0.0.1:1"), limits(2));
    let error = Error::from(client.describe("s").await.unwrap_err());
    assert_eq!(error.exit, Exit::Unavailable, "{error:?}");
}

#[tokio::test]
async fn without_credentials_the_remedy_is_named() {
    let server = answering(found()).await;
    let config = settings(&server.uri()).into_builder();
    let chain =
        CredentialsProviderChain::first_try("environment", EnvironmentVariableCredentialsProvider::new());
    let config = config.credentials_provider(SharedCredentialsProvider::new(chain)).build();
    let error = Error::from(SecretsManager::new(&config, limits(1)).describe("s").await.unwrap_err());
    assert_eq!(error.exit, Exit::Usage, "{error:?}");
    assert!(error.hint.unwrap().contains("AWS_PROFILE"));
}
