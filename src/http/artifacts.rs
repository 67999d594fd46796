//! `GET /jobs/{id}/artifacts/{name}`: the content of a kept file.
//!
//! What a task made is not trusted: a browser is told to save it, to believe its media type, and, should it show
//! it all the same, to let nothing in it run or load.

mod range;

use std::io::SeekFrom;

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use self::range::Wanted;
use super::{App, jobs::find, problem::Problem};
use crate::artifact::{content_type, name};

/// How much of a file is read at a time, in bytes.
const PIECE: usize = 64 * 1024;

pub(super) async fn artifact(
    State(app): State<App>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((id, name)) = path?;
    let job = find(&app, &id).await?;
    let ending = job.ending.as_ref().filter(|_| job.outcome().is_some());
    let kept = ending.and_then(|ending| ending.artifacts.iter().find(|kept| kept.name == name));
    let kept = kept.ok_or_else(|| missing(format!("{id} has no artifact {name:?}")))?;
    let file = app.archive.open_file(job.job_id, &kept.name, kept.size).await;
    let mut file = file.ok_or_else(|| missing(format!("{name:?} of {id} was kept once and is gone")))?;

    // Its digest is all that there is to say of its version: an id runs once, and a retry replaces the record.
    let tag = format!("\"{}\"", kept.sha256);
    let mut answer = HeaderMap::new();
    let mut set = |name: HeaderName, value: &str| {
        answer.extend(HeaderValue::from_str(value).map(|value| (name, value)));
    };
    set(header::ETAG, &tag);
    set(header::ACCEPT_RANGES, "bytes");
    set(header::CONTENT_TYPE, content_type::of(&name));
    set(header::CONTENT_DISPOSITION, &name::disposition(&name));
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox");
    if range::names(headers.get(header::IF_NONE_MATCH), &tag) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    let (status, start, length) = match range::wanted(&headers, &tag, kept.size) {
        Wanted::All => (StatusCode::OK, 0, kept.size),
        Wanted::Part { first, last } => {
            set(header::CONTENT_RANGE, &format!("bytes {first}-{last}/{}", kept.size));
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
        }
        Wanted::Nothing => {
            let detail = format!("the range lies outside of the {} bytes of {name:?}", kept.size);
            return Err(Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, detail)
                .with_header(header::CONTENT_RANGE, &format!("bytes */{}", kept.size)));
        }
    };
    set(header::CONTENT_LENGTH, &length.to_string());
    file.seek(SeekFrom::Start(start)).await.map_err(|error| {
        tracing::error!(%error, "cannot read an artifact");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the artifact cannot be read")
    })?;
    let content = ReaderStream::with_capacity(file.take(length), PIECE);
    Ok((status, answer, Body::from_stream(content)).into_response())
}

fn missing(detail: String) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, detail)
}
