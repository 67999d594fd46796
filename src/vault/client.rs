//! The connection: settings, token, and the one way in which requests are made.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use rustify::{
    endpoint::Endpoint,
    enums::{RequestMethod, RequestType, ResponseType},
    errors::ClientError,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use vaultrs::{
    api::EndpointMiddleware,
    client::{Client as _, VaultClient, VaultClientSettingsBuilder},
};

use super::error::{Asked, Error, Kind};
use crate::credential::Credential;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where Vault is and who asks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server's address, `http` or `https`.
    pub address: String,
    /// A file with the CA certificates to trust besides the system's.
    pub ca_certificate: Option<PathBuf>,
    /// The Vault namespace.
    pub namespace: Option<String>,
    /// The token that requests carry.
    pub token: Credential,
}

/// A connection to Vault; clones share it, its token included.
#[derive(Clone)]
pub struct Vault {
    shared: Arc<Shared>,
}

struct Shared {
    /// Only its HTTP client is used; its settings, which would print a token, stay in here.
    client: VaultClient,
    /// Adds version and namespace to each request.
    middleware: EndpointMiddleware,
    token: Credential,
    address: String,
}

impl fmt::Debug for Vault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Vault").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

/// The methods that Vault's API knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Lists keys.
    List,
    /// Creates or updates.
    Post,
    /// Deletes.
    Delete,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::List => "LIST",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// An answer of Vault that is not an error.
#[derive(Clone)]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    /// The whole body; `Null` where there is none. It may hold a token or a secret's value.
    pub body: Value,
}

impl fmt::Debug for Response {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Response {
    /// The `data` of the answer.
    #[must_use]
    pub fn data(&self) -> &Value {
        self.body.get("data").unwrap_or(&Value::Null)
    }
}

/// A request that carries the given fields and no others.
#[derive(Clone, Copy)]
struct Request<'a> {
    method: Method,
    path: &'a str,
    body: Option<&'a str>,
}

impl Endpoint for Request<'_> {
    type Response = Value;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.to_owned()
    }

    fn method(&self) -> RequestMethod {
        match self.method {
            Method::Get => RequestMethod::GET,
            Method::List => RequestMethod::LIST,
            Method::Post => RequestMethod::POST,
            Method::Delete => RequestMethod::DELETE,
        }
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(self.body.map(|body| body.as_bytes().to_vec()))
    }
}

impl Vault {
    /// Prepares a connection; nothing is sent yet.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let address = check_address(&settings.address)?;
        let certificates =
            settings.ca_certificate.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let client_settings = VaultClientSettingsBuilder::default()
            .address(&address)
            .ca_certs(certificates)
            .namespace(settings.namespace.clone().filter(|namespace| !namespace.is_empty()))
            .timeout(Some(TIMEOUT))
            .token("")
            .verify(true)
            .build()
            .map_err(|error| Error::Settings(error.to_string()))?;
        let client = VaultClient::new(client_settings).map_err(|error| Error::Prepare(Box::new(error)))?;
        let middleware = client.middle().clone();
        let token = settings.token.clone();
        Ok(Self { shared: Arc::new(Shared { client, middleware, token, address }) })
    }

    /// The server's address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// The token that requests carry.
    #[must_use]
    pub fn credential(&self) -> &Credential {
        &self.shared.token
    }

    /// A connection to the same server that carries another token.
    #[must_use]
    pub fn with_token(&self, token: &SecretString) -> Self {
        let shared = &self.shared;
        let http =
            rustify::clients::reqwest::Client::new(&shared.client.http.base, shared.client.http.http.clone());
        let middleware = shared.middleware.clone();
        let client =
            VaultClient { http, middle: middleware.clone(), settings: shared.client.settings.clone() };
        let (token, address) = (token.clone().into(), shared.address.clone());
        Self { shared: Arc::new(Shared { client, middleware, token, address }) }
    }

    /// Makes one request with exactly the fields of `body`. `path` is relative to `/v1/`.
    ///
    /// It is made once more where Vault refuses the token and its file holds another by now: a refused
    /// request has done nothing.
    pub async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, Error> {
        let body = body.map(Value::to_string);
        let request = Request { method, path, body: body.as_deref() };
        let token = self.shared.token.token();
        let first = self.attempt(request, token.as_ref()).await;
        let refused = matches!(&first, Err(error) if error.kind() == Some(Kind::Denied));
        if refused && self.shared.token.read_again(token.as_ref()).is_ok_and(|is_new| is_new) {
            return self.attempt(request, self.shared.token.token().as_ref()).await;
        }
        first
    }

    async fn attempt(&self, request: Request<'_>, token: Option<&SecretString>) -> Result<Response, Error> {
        let asked = || Asked { method: request.method.name(), path: request.path.to_owned() };
        match self.sent(request, token).await {
            Ok((status, raw)) => {
                let body = if raw.is_empty() {
                    Value::Null
                } else {
                    serde_json::from_slice(&raw)
                        .map_err(|_| Error::Answer { asked: asked(), what: "not JSON".to_owned() })?
                };
                Ok(Response { status, body })
            }
            Err(ClientError::ServerResponseError { code, content }) => {
                let text = vaults_words(content.as_deref());
                let kind = Kind::of(code, &text);
                Err(Error::Refused { asked: asked(), status: code, kind, text })
            }
            Err(source) => Err(Error::Unreachable { asked: asked(), source: Box::new(source) }),
        }
    }

    /// The status and the body of an answer that is no error.
    async fn sent(
        &self,
        request: Request<'_>,
        token: Option<&SecretString>,
    ) -> Result<(u16, Vec<u8>), ClientError> {
        #[cfg(test)]
        {
            use crate::ambient::simulated::{Server, answer};
            let url = format!("{}/v1/{}", self.shared.address, request.path);
            let body = request.body.map(str::as_bytes);
            match answer(Server::Vault, request.method.name(), &url, body).await {
                Some((code @ 200..300, body)) => return Ok((code, body.into_bytes())),
                Some((code, body)) => {
                    return Err(ClientError::ServerResponseError { code, content: Some(body) });
                }
                None => {}
            }
        }
        let mut middleware = self.shared.middleware.clone();
        if let Some(token) = token {
            token.expose_secret().clone_into(&mut middleware.token);
        }
        let result = request.with_middleware(&middleware).exec(self.shared.client.http()).await?;
        Ok((result.response.status().as_u16(), result.response.body().clone()))
    }

    /// Reads `path`; `None` where nothing is there.
    pub async fn read(&self, path: &str) -> Result<Option<Value>, Error> {
        self.found(Method::Get, path, None).await
    }

    /// The keys below `path`; none where nothing is there.
    pub async fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        let data = self.found(Method::List, path, None).await?;
        Ok(data.as_ref().map(|data| texts(&data["keys"])).unwrap_or_default())
    }

    /// Writes `body` to `path`.
    pub async fn write(&self, path: &str, body: &Value) -> Result<Response, Error> {
        self.request(Method::Post, path, Some(body)).await
    }

    /// Deletes `path`; nothing there is fine.
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        self.found(Method::Delete, path, None).await.map(drop)
    }

    /// Makes a request whose answer may be 404, or empty.
    pub(super) async fn found(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Option<Value>, Error> {
        match self.request(method, path, body).await {
            Ok(response) => Ok(Some(response.data().clone()).filter(|data| !data.is_null())),
            Err(error) if error.kind() == Some(Kind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The error for an answer without the field that it should have.
pub(super) fn lacks(method: &'static str, path: &str, field: &str) -> Error {
    Error::Answer { asked: Asked { method, path: path.to_owned() }, what: format!("it has no `{field}`") }
}

/// The texts of a JSON list; none where it is null or missing.
pub(super) fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// Checks the address here, because vaultrs panics on a malformed one.
fn check_address(address: &str) -> Result<String, Error> {
    let wrong = |reason: &str| Error::Address { address: address.to_owned(), reason: reason.to_owned() };
    let trimmed = address.trim_end_matches('/');
    let url = reqwest::Url::parse(trimmed).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("it must begin with http:// or https://"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::Address {
            address: "(hidden)".to_owned(),
            reason: "it must not contain a user name or password".to_owned(),
        });
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it must end after the host, the port or a path"));
    }
    Ok(trimmed.to_owned())
}

/// The `errors` of an answer's body in one line; some words where it has none.
fn vaults_words(content: Option<&str>) -> String {
    let body: Value = content.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let errors = texts(&body["errors"]);
    if errors.is_empty() {
        return "no reason given".to_owned();
    }
    errors.join("; ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(address: &str) -> Settings {
        Settings {
            address: address.to_owned(),
            ca_certificate: None,
            namespace: None,
            token: SecretString::from("hvs.hidden").into(),
        }
    }

    #[test]
    fn only_addresses_of_servers_pass() {
        for good in ["http://127.0.0.1:8200", "https://vault.example/", "https://h/base/"] {
            assert!(Vault::new(&settings(good)).is_ok(), "{good}");
        }
        for bad in ["", "vault:8200", "http://", "ftp://h", "http://h:x", "mailto:a", "http://h/?a=b"] {
            assert!(matches!(Vault::new(&settings(bad)), Err(Error::Address { .. })), "{bad}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_not_repeated() {
        let error = Vault::new(&settings("http://me:hunter2@h")).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn the_token_does_not_print() {
        let settings = settings("http://h");
        let vault = Vault::new(&settings).unwrap();
        assert!(!format!("{settings:?} {vault:?}").contains("hidden"));
    }

    #[test]
    fn vaults_words_become_one_line() {
        let body = r#"{"errors":["1 error occurred:\n\t* no\n\n"]}"#;
        assert_eq!(vaults_words(Some(body)), "1 error occurred: * no");
        assert_eq!(vaults_words(Some("<html>")), "no reason given");
    }
}
