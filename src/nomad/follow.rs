//! Following the log of a running task.

use reqwest::{Method, Response};

use super::{
    client::{Client, escape},
    error::Error,
    files::gone,
};

/// A log that is followed.
#[derive(Debug)]
pub struct LogStream {
    request: String,
    response: Response,
}

impl LogStream {
    /// The next piece, however long it takes; `None` where Nomad has no more.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let piece = self.response.chunk().await.map_err(|source| Error::Request {
            request: self.request.clone(),
            source: source.without_url(),
        })?;
        Ok(piece.map(|piece| piece.to_vec()))
    }
}

impl Client {
    /// Follows what a task prints on standard output, from the byte `offset` on; `None` where Nomad does not
    /// have it. Nomad answers with the first piece, so this takes as long as the task is silent.
    pub async fn follow_log(
        &self,
        allocation: &str,
        task: &str,
        offset: u64,
    ) -> Result<Option<LogStream>, Error> {
        let path = format!("/v1/client/fs/logs/{}", escape(allocation));
        let request = format!("GET {path}");
        let offset = offset.to_string();
        let query = [
            ("task", task),
            ("type", "stdout"),
            ("plain", "true"),
            ("origin", "start"),
            ("offset", &offset),
            ("follow", "true"),
        ];
        match self.deliver(&request, self.request(Method::GET, &path).query(&query)).await {
            Ok(response) => Ok(Some(LogStream { request, response })),
            Err(Error::Status { status, text, .. }) if gone(status, &text) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
