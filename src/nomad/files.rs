//! Logs and files of allocations, through Nomad's client API.
//!
//! Tried on 1.11.3, and what the functions here rest on:
//! - A list is made without following links, and refuses a folder that a link leads out of the
//!   allocation. Names that are not UTF-8 come with U+FFFD.
//! - `stat` opens the file to guess its type, so that one pipe without a writer holds it up for ever: it
//!   is not used.
//! - `readat` follows links inside the allocation, and answers every error with 200 and a sentence as the
//!   body, or an empty one where that sentence has `closed` or `EOF` in it. Whoever reads must know how
//!   many bytes there should be.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;

use super::{
    client::{Client, escape},
    error::Error,
};

/// How long it is waited for the next bytes of a file.
const PATIENCE: Duration = Duration::from_secs(30);

/// The end of a task's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTail {
    /// The last bytes, at most as many as asked for.
    pub bytes: Vec<u8>,
    /// Whether there was more before them.
    pub truncated: bool,
}

/// One entry of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FolderEntry {
    /// Its name in the folder.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Go's text for its type and mode, such as `-rw-r--r--`, `drwxr-xr-x`, `Lrwxrwxrwx` or `prw-r--r--`.
    pub file_mode: String,
}

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A folder.
    Folder,
    /// A symbolic link, wherever it leads.
    Link,
    /// A device, a pipe, a socket, or something that is not known.
    Special,
}

impl FolderEntry {
    /// What it is, told from what stands before the nine permissions in its mode (Go's `fs.FileMode`).
    #[must_use]
    pub fn kind(&self) -> FileKind {
        let mode = self.file_mode.as_bytes();
        let kind = &mode[..mode.len().saturating_sub(9)];
        // Set-user-id, set-group-id and sticky say nothing about the type.
        let only = |own: u8| kind.iter().all(|letter| *letter == own || b"ugt".contains(letter));
        match kind {
            [] => FileKind::Special,
            _ if kind.contains(&b'L') => FileKind::Link,
            _ if kind.contains(&b'd') && only(b'd') => FileKind::Folder,
            _ if only(b'-') => FileKind::Regular,
            _ => FileKind::Special,
        }
    }
}

/// A file that is being read.
#[derive(Debug)]
pub struct FileStream {
    response: Response,
    request: String,
}

impl FileStream {
    /// The next bytes; `None` at the end of the reply.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let stalled = |_| Error::Stalled { request: self.request.clone(), limit: PATIENCE };
        let next = tokio::time::timeout(PATIENCE, self.response.chunk()).await.map_err(stalled)?;
        let chunk = next.map_err(|source| Error::Request {
            request: self.request.clone(),
            source: source.without_url(),
        })?;
        Ok(chunk.map(|bytes| bytes.to_vec()))
    }
}

impl Client {
    /// The last `limit` bytes of a task's standard output; `None` where Nomad no longer has it.
    pub async fn log_tail(
        &self,
        allocation: &str,
        task: &str,
        limit: usize,
    ) -> Result<Option<LogTail>, Error> {
        let path = format!("/v1/client/fs/logs/{}", escape(allocation));
        let offset = (limit + 1).to_string();
        let query =
            [("task", task), ("type", "stdout"), ("plain", "true"), ("origin", "end"), ("offset", &offset)];
        let builder = self.request(Method::GET, &path).query(&query);
        let Some(mut bytes) = self.bytes(&path, builder).await? else { return Ok(None) };
        let truncated = bytes.len() > limit;
        if truncated {
            bytes.drain(..bytes.len() - limit);
        }
        Ok(Some(LogTail { bytes, truncated }))
    }

    /// The first `limit` bytes of a file in an allocation's folder; `None` where there is none.
    ///
    /// Nomad's words about a file that it cannot read may come as its content.
    pub async fn file(&self, allocation: &str, file: &str, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let (path, builder) = self.read_at(allocation, file, limit as u64);
        self.bytes(&path, builder).await
    }

    /// What a folder of an allocation holds; `None` where there is no such folder, or no allocation any more.
    /// A list of more than `limit` bytes is an error.
    pub async fn folder(
        &self,
        allocation: &str,
        folder: &str,
        limit: usize,
    ) -> Result<Option<Vec<FolderEntry>>, Error> {
        let path = format!("/v1/client/fs/ls/{}", escape(allocation));
        let request = format!("GET {path}");
        let builder = self.request(Method::GET, &path).query(&[("path", folder)]);
        let mut response = match self.send(&request, builder).await {
            Ok(response) => response,
            Err(Error::Status { status, text, .. }) if gone(status, &text) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        let failed = |source: reqwest::Error| Error::Request {
            request: request.clone(),
            source: source.without_url(),
        };
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > limit {
                return Err(Error::TooLong { request, limit });
            }
            bytes.extend_from_slice(&chunk);
        }
        let entries: Option<Vec<FolderEntry>> =
            serde_json::from_slice(&bytes).map_err(|source| Error::Reply { request, source })?;
        Ok(Some(entries.unwrap_or_default()))
    }

    /// Begins to read a file of an allocation, `limit` bytes at most.
    pub async fn open_file(&self, allocation: &str, file: &str, limit: u64) -> Result<FileStream, Error> {
        let (path, builder) = self.read_at(allocation, file, limit);
        let request = format!("GET {path}");
        match tokio::time::timeout(PATIENCE, self.deliver(&request, builder)).await {
            Ok(response) => Ok(FileStream { response: response?, request }),
            Err(_) => Err(Error::Stalled { request, limit: PATIENCE }),
        }
    }

    fn read_at(&self, allocation: &str, file: &str, limit: u64) -> (String, RequestBuilder) {
        let path = format!("/v1/client/fs/readat/{}", escape(allocation));
        let limit = limit.to_string();
        let query = [("path", file), ("offset", "0"), ("limit", limit.as_str())];
        let builder = self.request(Method::GET, &path).query(&query);
        (path, builder)
    }

    async fn bytes(&self, path: &str, builder: RequestBuilder) -> Result<Option<Vec<u8>>, Error> {
        let name = format!("GET {path}");
        let response = match self.send(&name, builder).await {
            Ok(response) => response,
            Err(Error::Status { status, text, .. }) if gone(status, &text) => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = response
            .bytes()
            .await
            .map_err(|source| Error::Request { request: name, source: source.without_url() })?;
        Ok(Some(bytes.to_vec()))
    }
}

/// Whether a reply about a file says that it, or its allocation, is no longer there.
///
/// Nomad gives 500 for a file that the client cannot find, and 404 for a node that is out of reach. Of a token
/// that it refuses it says "not found" too.
pub(super) fn gone(status: StatusCode, text: &str) -> bool {
    if matches!(status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) {
        return false;
    }
    let said = ["no such file", "not found", "unknown allocation", "Unknown allocation"];
    (status == StatusCode::NOT_FOUND && !text.contains("No path to node"))
        || said.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_surely_a_regular_file_counts_as_one() {
        for (mode, kind) in [
            ("-rw-r--r--", FileKind::Regular),
            ("----------", FileKind::Regular),
            ("urwxr-xr-x", FileKind::Regular),
            ("ugrwxr-xr-x", FileKind::Regular),
            ("drwxr-xr-x", FileKind::Folder),
            ("dtrwxrwxrwx", FileKind::Folder),
            ("Lrwxrwxrwx", FileKind::Link),
            ("dLrwxrwxrwx", FileKind::Link),
            ("Dcrw-rw-rw-", FileKind::Special),
            ("Drw-rw----", FileKind::Special),
            ("prw-r--r--", FileKind::Special),
            ("Srwxr-xr-x", FileKind::Special),
            ("?rw-r--r--", FileKind::Special),
            ("rw-r--r--", FileKind::Special),
            ("", FileKind::Special),
        ] {
            let entry = FolderEntry { file_mode: mode.to_owned(), ..FolderEntry::default() };
            assert_eq!(entry.kind(), kind, "{mode}");
        }
    }

    #[test]
    fn a_refused_token_does_not_make_a_file_missing() {
        assert!(!gone(StatusCode::FORBIDDEN, "ACL token not found or invalid workload identity"));
    }

    #[test]
    fn a_node_out_of_reach_is_no_missing_file() {
        assert!(gone(StatusCode::NOT_FOUND, "Unknown allocation \"a\""));
        assert!(gone(StatusCode::INTERNAL_SERVER_ERROR, "open a: no such file or directory"));
        assert!(!gone(StatusCode::NOT_FOUND, "No path to node"));
        assert!(!gone(StatusCode::INTERNAL_SERVER_ERROR, "Path escapes the alloc directory"));
    }
}
