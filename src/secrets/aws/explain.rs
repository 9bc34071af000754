//! From the SDK's errors to ours: which are a missing permission, which are worth waiting for, which are not.
//!
//! Only texts known to hold no value are repeated. The SDK's Debug output holds whole answers, so it is never
//! formatted; a ValidationException may quote the value that it refused, so its message is dropped.

use std::error::Error as StdError;

use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use url::Url;

use super::super::SourceError;
use crate::fault_point::{self, Side};

/// One call, as errors name it.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// The IAM action, `secretsmanager:GetSecretValue` say.
    pub action: &'static str,
    /// The secret's name or ARN.
    pub secret_id: &'a str,
}

impl Call<'_> {
    /// Makes the call, with a fault point on either side of it.
    pub async fn made<T, E, R>(
        self,
        request: impl Future<Output = Result<T, SdkError<E, R>>>,
    ) -> Result<T, SdkError<E, R>> {
        let lost = |_| SdkError::timeout_error("fault point");
        if let Some(fault) = fault_point::reach(Side::Before, self.action) {
            return Err(lost(fault));
        }
        let answer = request.await?;
        match fault_point::reach(Side::After, self.action) {
            None => Ok(answer),
            Some(fault) => Err(lost(fault)),
        }
    }

    /// Explains a failed call.
    pub fn explain<E>(self, error: SdkError<E>) -> SourceError
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        match &error {
            // An answer that is no JSON, a proxy's page say, comes as a service error without a code.
            SdkError::ServiceError(service) => {
                match (service.err().code(), service.raw().status().as_u16()) {
                    (Some(code), _) => self.service(code, service.err().message().unwrap_or_default()),
                    (None, 200..300) => self.unavailable("the response is unreadable"),
                    (None, status) => self.unavailable(&format!("HTTP status {status}")),
                }
            }
            SdkError::TimeoutError(_) => self.unavailable("no response in time"),
            SdkError::ResponseError(_) => self.unavailable("the response is unreadable"),
            SdkError::DispatchFailure(failure) => {
                let error = failure.as_connector_error();
                let chain = error.map(|e| chain(e)).unwrap_or_default();
                if is_untrusted(&chain) {
                    untrusted(&chain)
                } else if failure.is_timeout() {
                    self.unavailable("no response in time")
                } else if failure.is_io() {
                    self.unavailable(&format!("no connection: {chain}"))
                } else {
                    self.no_credentials(&chain)
                }
            }
            error => self.no_credentials(&chain(error)),
        }
    }

    fn service(self, code: &str, message: &str) -> SourceError {
        let resource = self.secret_id.to_owned();
        match code {
            "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => {
                let kms = is_about_kms(message);
                SourceError::Denied {
                    action: if kms { kms_action(self.action) } else { self.action },
                    resource: if kms { format!("the KMS key of {resource}") } else { resource },
                    detail: format!("AWS says: {message}"),
                }
            }
            "ResourceNotFoundException" => SourceError::Missing {
                source_name: format!("aws:{}", self.secret_id.replace('@', "%40")),
                what: "Secrets Manager has no such secret, version or label".into(),
                hint: "Check the name, AWS_REGION and the account (`aws sts get-caller-identity`)".into(),
            },
            "InvalidRequestException" if message.contains("deletion") || message.contains("deleted") => {
                SourceError::Missing {
                    source_name: format!("aws:{}", self.secret_id.replace('@', "%40")),
                    what: "the secret is scheduled for deletion".into(),
                    hint: format!(
                        "Restore it with `aws secretsmanager restore-secret --secret-id {resource}`"
                    ),
                }
            }
            "ThrottlingException"
            | "Throttling"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "SlowDown"
            | "InternalServiceError"
            | "InternalServiceErrorException"
            | "InternalFailure"
            | "InternalError"
            | "ServiceUnavailable"
            | "ServiceUnavailableException" => self.unavailable(code),
            "InvalidRequestException"
            | "InvalidParameterException"
            | "LimitExceededException"
            | "ResourceExistsException"
            | "DecryptionFailure"
            | "EncryptionFailure"
            | "PublicPolicyException"
            | "PreconditionNotMetException" => {
                SourceError::Refused { action: self.action, resource, detail: format!("{code}: {message}") }
            }
            "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "InvalidClientTokenId"
            | "IncompleteSignature"
            | "MissingAuthenticationTokenException" => SourceError::Config {
                what: format!("AWS rejects these credentials: {code}"),
                hint: "Renew them (`aws sts get-caller-identity` shows whose they are), and check the clock"
                    .into(),
            },
            other => SourceError::Refused { action: self.action, resource, detail: printable(other) },
        }
    }

    fn unavailable(self, detail: &str) -> SourceError {
        SourceError::Unavailable {
            action: self.action,
            resource: self.secret_id.to_owned(),
            detail: printable(detail),
        }
    }

    fn no_credentials(self, chain: &str) -> SourceError {
        // The credential chain asks network services too; when those fail, waiting may help.
        let transient = ["timed out", "timeout", "unreachable", "ProviderTimedOut"];
        let said = chain.to_lowercase();
        if is_untrusted(chain) {
            return untrusted(chain);
        }
        if said.contains("throttl") || said.contains("too many requests") {
            return self.unavailable("throttled while credentials were asked for");
        }
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let container = ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
        let service = container.into_iter().find_map(|name| Some((name, server_of(&set(name)?))));
        if let (Some((name, server)), None) = (service, set("AWS_ACCESS_KEY_ID")) {
            let what = format!(
                "the container's credentials service{server} ({name}: Pod Identity, ECS) gives no credentials"
            );
            let away = ["connect", "dispatch", "timed out", "timeout", "io error", "unreachable"];
            return match away.iter().any(|word| said.contains(word)) {
                true => self.unavailable(&what),
                false => SourceError::Config {
                    what,
                    hint:
                        "check the pod's service account and its Pod Identity association, or the task's role"
                            .into(),
                },
            };
        }
        if transient.iter().any(|t| chain.contains(t)) {
            return self.unavailable("no credentials in time");
        }
        let profile = set("AWS_PROFILE").map_or_else(String::new, |name| format!(" --profile {name}"));
        for (word, what, hint) in [
            ("sso", "the profile's SSO session has no valid token", format!("run `aws sso login{profile}`")),
            (
                "webidentity",
                "the web identity token gives no credentials",
                "check AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN and the role's trust policy".to_owned(),
            ),
            (
                "credential_process",
                "the program of credential_process gives no credentials",
                format!("run `aws sts get-caller-identity{profile}`, which shows what it says"),
            ),
        ] {
            if said.replace(['-', ' '], "").contains(word) {
                return SourceError::Config { what: what.to_owned(), hint };
            }
        }
        SourceError::Config {
            what: format!("no AWS credentials to call {}", self.action),
            hint: "Give this process a role (IRSA, pod identity, instance profile), or set AWS_PROFILE, or \
                AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                .into(),
        }
    }
}

/// The server in a URI, and no more of it: the rest may hold a token.
fn server_of(uri: &str) -> String {
    let server = |url: Url| {
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        Some(format!(" at {}://{}{port}", url.scheme(), url.host_str()?))
    };
    Url::parse(uri).ok().and_then(server).unwrap_or_default()
}

/// AWS names the action that it denies. Names of secrets, users and roles may have KMS in them, too.
fn is_about_kms(message: &str) -> bool {
    message.contains("perform: kms:") || message.contains("Access to KMS is not allowed")
}

/// Whether a failed connection failed because the server's certificate is not trusted.
pub(super) fn is_untrusted(chain: &str) -> bool {
    ["invalid peer certificate", "UnknownIssuer", "CertNotValid", "certificate expired"]
        .iter()
        .any(|w| chain.contains(w))
}

fn untrusted(chain: &str) -> SourceError {
    let why = chain.rsplit("invalid peer certificate").next().unwrap_or_default();
    SourceError::Config {
        what: printable(&format!("the certificate of AWS's endpoint is not trusted{why}")),
        hint: "Let AWS_CA_BUNDLE, or SSL_CERT_FILE, name a file with the certificate of the CA that signed it (a proxy's own CA, say)"
            .into(),
    }
}

fn kms_action(action: &str) -> &'static str {
    if action == "secretsmanager:GetSecretValue" { "kms:Decrypt" } else { "kms:GenerateDataKey" }
}

/// The Display texts of an error and its causes.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}

/// A server chose this text: one line, bounded.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
