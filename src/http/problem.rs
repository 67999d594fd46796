//! Errors as RFC 9457 has them.

use axum::{
    extract::rejection::{BytesRejection, FormRejection, PathRejection, QueryRejection},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::view::ProblemDocument;
use crate::{approval, controller::driver::operate, store, telemetry::chain};

/// The media type of a problem.
pub(super) const CONTENT_TYPE: &str = "application/problem+json";

/// Why a request is not answered as it was meant.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), headers: Vec::new() }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).map(|value| (name, value)));
        self
    }

    /// What is wrong.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// What was asked for is not there.
    pub(super) fn no_such_job(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no job {id:?}: give a job id or an action id"))
    }

    /// The agent cannot answer now, but soon.
    pub(super) fn not_now() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the agent is starting or ending")
            .with_header(header::RETRY_AFTER, "1")
    }

    /// A field, a parameter or an argument makes no sense.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = ProblemDocument {
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or_default().to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
        };
        let body = serde_json::to_string(&document).unwrap_or_default();
        let mut response = (self.status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        tracing::error!(error = chain(&error), "a request failed on the store");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the agent's store failed; its log says more")
    }
}

impl From<operate::Refused> for Problem {
    fn from(refused: operate::Refused) -> Self {
        match refused {
            operate::Refused::Unknown => Self::new(StatusCode::NOT_FOUND, refused.to_string()),
            operate::Refused::Retry(retry) if retry.is_about_the_step() => Self::invalid(retry.to_string()),
            operate::Refused::Retry(retry) => Self::new(StatusCode::CONFLICT, retry.to_string()),
            operate::Refused::Approval(refused @ approval::Refused::Own(_)) => {
                Self::new(StatusCode::FORBIDDEN, refused.to_string())
            }
            operate::Refused::Approval(_) => Self::new(StatusCode::CONFLICT, refused.to_string()),
            operate::Refused::Store(error) => error.into(),
        }
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<FormRejection> for Problem {
    fn from(rejection: FormRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}
