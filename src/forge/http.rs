//! Asking over HTTP: the token, time limits, bounded replies, pages, and what a refusal means.

use std::{sync::Mutex, time::Duration};

use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header::HeaderMap, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;

use super::{Error, Kind, Right, Settings};
use crate::credential::Credential;

/// How long a request may take.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How much of a reply is read, in bytes. A page of fifty pull requests has some hundred thousand.
const REPLY_LIMIT: usize = 8 * 1024 * 1024;
/// How many objects are listed in one reply: Gitea gives no more, unless it is set up to.
const PAGE: usize = 50;
/// How many pages of one list are read.
const PAGES: usize = 40;
/// How much of a refusal is kept, in characters.
const SAID: usize = 300;
/// How long no question is asked where a forge wants a pause and does not say how long.
const PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// The longest pause that a forge is believed to want: GitHub counts by the hour.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(1);

/// One forge's API.
#[derive(Debug)]
pub(super) struct Http {
    requests: reqwest::Client,
    pub(super) kind: Kind,
    base: String,
    token: Credential,
    /// Until when it takes no more requests.
    limited: Mutex<Option<Timestamp>>,
}

/// A request that gives something, and what the token must be able to do for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'text> {
    pub(super) path: &'text str,
    pub(super) right: Right,
}

impl Http {
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        let setup = |what: String| Error::Setup { what };
        let given = settings.url.trim_end_matches('/');
        let base = match (settings.kind, given) {
            (Kind::GitHub, "" | "https://github.com" | "https://api.github.com") => {
                "https://api.github.com".to_owned()
            }
            (Kind::GitHub, url) => format!("{url}/api/v3"),
            (Kind::Gitea, url) => format!("{url}/api/v1"),
        };
        let url = reqwest::Url::parse(&base).map_err(|error| setup(format!("url {given:?}: {error}")))?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .timeout(TIME_LIMIT)
            // The token goes to the configured address alone.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("consign/", env!("CARGO_PKG_VERSION")));
        match url.scheme() {
            "https" => {}
            "http" => builder = builder.tls_certs_only(Vec::new()),
            _ => return Err(setup(format!("url {given:?} is neither http nor https"))),
        }
        if let Some(path) = &settings.ca_cert {
            let unreadable = |error: &dyn std::error::Error| setup(format!("{}: {error}", path.display()));
            let pem = std::fs::read(path).map_err(|error| unreadable(&error))?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(&error))?;
            builder = builder.tls_certs_merge(certificates);
        }
        let requests = builder.build().map_err(|error| setup(error.to_string()))?;
        let token = settings.token.clone();
        Ok(Self { requests, kind: settings.kind, base, token, limited: Mutex::new(None) })
    }

    /// What is at the path; `None` where there is no such thing.
    pub(super) async fn find<T: DeserializeOwned>(&self, question: Question<'_>) -> Result<Option<T>, Error> {
        match self.get(question, &[]).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        question: Question<'_>,
        query: &[(&str, &str)],
    ) -> Result<T, Error> {
        let builder = self.requests.get(format!("{}{}", self.base, question.path)).query(query);
        self.read(Method::GET, question, builder).await
    }

    /// Every object of a list.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        question: Question<'_>,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>, Error> {
        let size = PAGE.to_string();
        let mut found = Vec::new();
        for page in 1..=PAGES {
            let page = page.to_string();
            let paging = [("page", page.as_str()), ("per_page", &size), ("limit", &size)];
            let part: Option<Vec<T>> = self.get(question, &[query, &paging].concat()).await?;
            // A forge may be set up to give shorter pages than were asked for: an empty one is the last, and some
            // of Gitea's empty lists are null.
            let part = part.unwrap_or_default();
            if part.is_empty() {
                return Ok(found);
            }
            let is_last = self.kind == Kind::GitHub && part.len() < PAGE;
            found.extend(part);
            if is_last {
                return Ok(found);
            }
        }
        Err(Error::TooLong {
            request: format!("GET {}", question.path),
            limit: PAGES * PAGE,
            unit: "entries",
        })
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        question: Question<'_>,
        body: &serde_json::Value,
    ) -> Result<T, Error> {
        let builder = self.requests.post(format!("{}{}", self.base, question.path)).json(body);
        self.read(Method::POST, question, builder).await
    }

    /// Deletes what is at the path, if there is such a thing.
    pub(super) async fn delete(&self, question: Question<'_>) -> Result<(), Error> {
        let builder = self.requests.delete(format!("{}{}", self.base, question.path));
        match self.send(format!("DELETE {}", question.path), question, builder).await {
            Ok(_) | Err(Error::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn read<T: DeserializeOwned>(
        &self,
        method: Method,
        question: Question<'_>,
        builder: RequestBuilder,
    ) -> Result<T, Error> {
        let request = format!("{method} {}", question.path);
        let body = self.send(request.clone(), question, builder).await?;
        serde_json::from_slice(&body).map_err(|source| Error::Reply { request, source })
    }

    /// The body of the answer, where that says yes.
    async fn send(
        &self,
        request: String,
        question: Question<'_>,
        builder: RequestBuilder,
    ) -> Result<Vec<u8>, Error> {
        self.may_ask()?;
        let broken = |source: reqwest::Error| Error::Request {
            request: request.clone(),
            source: source.without_url(),
        };
        let again = builder.try_clone();
        let token = self.token.token();
        let mut response = self.authorized(builder, token.as_ref()).send().await.map_err(broken)?;
        // The token may have been replaced in its file: a refused request has done nothing.
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(builder) = again
            && self.token.read_again(token.as_ref()).is_ok_and(|is_new| is_new)
        {
            response = self.authorized(builder, self.token.token().as_ref()).send().await.map_err(broken)?;
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = bounded(response, &request).await?;
        if status.is_success() {
            return Ok(body);
        }
        let said = said(&body, &headers);
        if let Some(until) = pause(status, &headers, Timestamp::now()) {
            if let Ok(mut limited) = self.limited.lock() {
                *limited = Some(until);
            }
            return Err(Error::Limited { until });
        }
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Error::Rights { right: question.right, kind: self.kind, said: format!("{status}: {said}") }
            }
            _ => Error::Status { request, status, said },
        })
    }

    fn authorized(&self, builder: RequestBuilder, token: Option<&SecretString>) -> RequestBuilder {
        let builder = match self.kind {
            Kind::GitHub => builder
                .header("Accept", "application/vnd.github+json")
                .header("X-GitHub-Api-Version", "2022-11-28"),
            Kind::Gitea => builder.header("Accept", "application/json"),
        };
        match token {
            // Gitea, Forgejo and GitHub all take this form.
            Some(token) => builder.header("Authorization", format!("token {}", token.expose_secret())),
            None => builder,
        }
    }

    /// Refuses before the forge would: one that wants a pause counts what it refuses as well.
    fn may_ask(&self) -> Result<(), Error> {
        let until = self.limited.lock().ok().and_then(|limited| *limited);
        match until {
            Some(until) if until > Timestamp::now() => Err(Error::Limited { until }),
            _ => Ok(()),
        }
    }
}

/// The body of a reply, as far as it is read.
async fn bounded(mut response: Response, request: &str) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    loop {
        let chunk = response
            .chunk()
            .await
            .map_err(|source| Error::Request { request: request.to_owned(), source: source.without_url() })?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() + chunk.len() > REPLY_LIMIT {
            return Err(Error::TooLong { request: request.to_owned(), limit: REPLY_LIMIT, unit: "bytes" });
        }
        body.extend_from_slice(&chunk);
    }
}

/// What a refusal says, with the right that GitHub names in a header.
fn said(body: &[u8], headers: &HeaderMap) -> String {
    let message = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|value| value.get("message")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let named = ["x-accepted-github-permissions", "x-accepted-oauth-scopes"]
        .iter()
        .filter_map(|name| headers.get(*name)?.to_str().ok())
        .find(|value| !value.is_empty());
    let message: String = message.trim().chars().take(SAID).collect();
    match named {
        Some(named) => format!("{message} (it accepts: {named})"),
        None => message,
    }
}

/// Until when the forge takes no more requests, where that is what a refusal means.
fn pause(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.parse::<i64>().ok();
    let is_limit = match status {
        StatusCode::TOO_MANY_REQUESTS => true,
        // GitHub refuses with 403 as well: then a header tells it from a missing right.
        StatusCode::FORBIDDEN => {
            number("x-ratelimit-remaining") == Some(0) || headers.contains_key("retry-after")
        }
        _ => false,
    };
    if !is_limit {
        return None;
    }
    let wanted = number("retry-after").map(|seconds| now.saturating_add(SignedDuration::from_secs(seconds)));
    let wanted = match wanted {
        Some(Ok(at)) => Some(at),
        _ => number("x-ratelimit-reset").and_then(|second| Timestamp::from_second(second).ok()),
    };
    let (soonest, latest) = (now + SignedDuration::from_secs(1), now + LONGEST_PAUSE);
    Some(wanted.unwrap_or(now + PAUSE).clamp(soonest, latest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_from_a_missing_right() {
        let now = Timestamp::from_second(1_000).unwrap();
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            headers
        };
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        for (status, pairs, until) in [
            (403, &[][..], None),
            (403, &[("x-ratelimit-remaining", "12")][..], None),
            (403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1090")][..], at(1_090)),
            (403, &[("retry-after", "30")][..], at(1_030)),
            (429, &[][..], at(1_060)),
            (429, &[("retry-after", "99999999999")][..], at(1_000 + 3_600)),
            (429, &[("x-ratelimit-reset", "3")][..], at(1_001)),
            (500, &[("retry-after", "30")][..], None),
        ] {
            let found = pause(StatusCode::from_u16(status).unwrap(), &headers(pairs), now);
            assert_eq!(found, until, "{status} {pairs:?}");
        }
    }

    #[test]
    fn a_bad_address_is_an_error_with_the_address() {
        for (kind, url) in [(Kind::Gitea, "git.example"), (Kind::Gitea, ""), (Kind::GitHub, "ftp://git")] {
            let settings = Settings {
                kind,
                url: url.to_owned(),
                repository: "a/b".to_owned(),
                token: Credential::default(),
                ca_cert: None,
            };
            assert!(Http::new(&settings).unwrap_err().to_string().contains(url), "{url}");
        }
    }
}
