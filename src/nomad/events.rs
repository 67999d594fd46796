//! Nomad's event stream: a wake-up, never the truth.
//!
//! It keeps about 100 events and drops what a slow or reconnecting reader misses without a word, so
//! whoever reads it also scans.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt as _};
use reqwest::Response;
use serde::Deserialize;

use super::{error::Error, model::Allocation};

/// Nomad sends an empty object every 10 s; a stream silent for longer than this is dead.
const SILENCE: Duration = Duration::from_secs(35);
/// The longest line that is read, in bytes; a longer one ends the stream.
const LINE_LIMIT: usize = 8 * 1024 * 1024;

/// Something that changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An allocation, as it now is.
    Allocation(Box<Allocation>),
    /// A job was registered, dispatched, changed or deregistered.
    Job {
        /// Its id.
        id: String,
    },
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Batch {
    events: Option<Vec<RawEvent>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawEvent {
    topic: String,
    key: String,
    payload: RawPayload,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawPayload {
    allocation: Option<Allocation>,
}

type Bytes = Pin<Box<dyn Stream<Item = reqwest::Result<Vec<u8>>> + Send>>;

/// A running event stream.
pub struct EventStream {
    bytes: Bytes,
    lines: Lines,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EventStream").finish_non_exhaustive()
    }
}

impl EventStream {
    pub(super) fn new(response: Response) -> Self {
        Self::over(response.bytes_stream().map(|chunk| chunk.map(|bytes| bytes.to_vec())))
    }

    /// The events in what Nomad sends, however it is cut into chunks.
    pub fn over(chunks: impl Stream<Item = reqwest::Result<Vec<u8>>> + Send + 'static) -> Self {
        Self { bytes: Box::pin(chunks), lines: Lines::default() }
    }

    /// The next events; `None` where the stream ended, broke or fell silent.
    pub async fn next(&mut self) -> Result<Option<Vec<Event>>, Error> {
        loop {
            if let Some(line) = self.lines.take() {
                let events = parse(&line);
                if !events.is_empty() {
                    return Ok(Some(events));
                }
                continue;
            }
            if self.lines.overlong() {
                return Ok(None);
            }
            match tokio::time::timeout(SILENCE, self.bytes.next()).await {
                Ok(Some(Ok(chunk))) => self.lines.push(&chunk),
                Ok(Some(Err(source))) => {
                    let request = "GET /v1/event/stream".to_owned();
                    return Err(Error::Request { request, source: source.without_url() });
                }
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }
}

/// The events in one line; a line that is no batch of events has none.
fn parse(line: &[u8]) -> Vec<Event> {
    let batch: Batch = serde_json::from_slice(line).unwrap_or_default();
    batch
        .events
        .unwrap_or_default()
        .into_iter()
        .filter_map(|event| match (event.topic.as_str(), event.payload.allocation) {
            ("Allocation", Some(allocation)) => Some(Event::Allocation(Box::new(allocation))),
            ("Job", _) => Some(Event::Job { id: event.key }),
            _ => None,
        })
        .collect()
}

/// Cuts chunks into lines, however they were cut on their way.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    /// How far the buffer was searched for a line's end.
    searched: usize,
}

impl Lines {
    fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end.map(|at| at + self.searched) else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.drain(..=end).collect();
        self.searched = 0;
        Some(line)
    }

    fn overlong(&self) -> bool {
        self.buffer.len() > LINE_LIMIT
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn events_are_read_and_noise_is_not() {
        let line = br#"{"Index":5,"Events":[{"Topic":"Allocation","Key":"a","Payload":{"Allocation":{"ID":"a","JobID":"runner/dispatch-1"}}},{"Topic":"Job","Key":"runner/dispatch-1","Payload":{"Job":{}}}]}"#;
        let events = parse(line);
        assert_eq!(events.len(), 2);
        assert_eq!(events[1], Event::Job { id: "runner/dispatch-1".to_owned() });
        for noise in [&b"{}"[..], b"", b"<html>", b"{\"Events\":null}"] {
            assert!(parse(noise).is_empty());
        }
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_lines(text in "[a-c\n]{0,60}", cut in 1_usize..9) {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for chunk in text.as_bytes().chunks(cut) {
                lines.push(chunk);
                while let Some(line) = lines.take() {
                    found.push(String::from_utf8(line).unwrap());
                }
            }
            let expected: Vec<String> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(ToOwned::to_owned).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
