//! Fetches one file, piece by piece, and tells its SHA-256.

use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::{WORKING_DIRECTORY, archive::Taking};
use crate::{
    artifact::{Chosen, Kind},
    hexadecimal,
    nomad::{self, Client},
    retry::Pause,
    telemetry::chain,
};

/// How often a file is asked for before it counts as unreadable.
const TRIES: u32 = 3;
/// How much is written before the disk's free space is looked at again, in bytes.
const LOOK: u64 = 16 * 1024 * 1024;

/// Where files come from, and what holds for all of them.
pub(super) struct Source<'source> {
    pub(super) nomad: &'source Client,
    pub(super) allocation: &'source str,
    pub(super) deadline: Instant,
    /// How much of the disk stays free, in bytes.
    pub(super) reserve: u64,
}

/// Why a file was not kept.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) kind: Kind,
    pub(super) reason: Option<String>,
    /// Whether another try may do better.
    passing: bool,
}

impl Refusal {
    const fn plain(kind: Kind) -> Self {
        Self { kind, reason: None, passing: false }
    }

    fn unwritable(error: &dyn std::error::Error) -> Self {
        Self { kind: Kind::Unwritable, reason: Some(chain(error)), passing: false }
    }

    fn unreadable(reason: String) -> Self {
        Self { kind: Kind::Unreadable, reason: Some(reason), passing: true }
    }

    fn nomad(error: &nomad::Error) -> Self {
        Self { passing: error.kind() == nomad::Kind::Unavailable, ..Self::unreadable(chain(error)) }
    }
}

impl Source<'_> {
    /// Fetches a file into its place, and gives its SHA-256 in hexadecimal.
    pub(super) async fn fetch(&self, file: &Chosen, taking: &mut Taking) -> Result<String, Refusal> {
        let mut pause = Pause::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut tried = 1;
        loop {
            let refusal = match self.fetch_once(file, taking).await {
                Ok(sha256) => return Ok(sha256),
                Err(refusal) => refusal,
            };
            taking.remove(&file.name).await.map_err(|error| Refusal::unwritable(&error))?;
            if !refusal.passing || tried == TRIES {
                return Err(refusal);
            }
            tracing::debug!(self.allocation, file.name, ?refusal, tried, "cannot fetch a file");
            tried += 1;
            tokio::time::sleep(pause.wait()).await;
        }
    }

    async fn fetch_once(&self, file: &Chosen, taking: &mut Taking) -> Result<String, Refusal> {
        self.room(file.size, taking)?;
        let path = format!("{WORKING_DIRECTORY}/{}", file.name);
        // One byte more than it had tells whether it grew.
        let limit = file.size.saturating_add(1);
        let mut stream = self
            .nomad
            .open_file(self.allocation, &path, limit)
            .await
            .map_err(|error| Refusal::nomad(&error))?;
        let mut place = taking.create(&file.name).await.map_err(|error| Refusal::unwritable(&error))?;
        let (mut hash, mut received, mut looked) = (Sha256::new(), 0_u64, 0_u64);
        while let Some(piece) = stream.next().await.map_err(|error| Refusal::nomad(&error))? {
            received = received.saturating_add(piece.len() as u64);
            if received > limit {
                break;
            }
            if received - looked >= LOOK {
                looked = received;
                self.room(file.size.saturating_sub(received), taking)?;
            }
            hash.update(&piece);
            place.write_all(&piece).await.map_err(|error| Refusal::unwritable(&error))?;
        }
        // Nomad's words about an error come as content, so the number of bytes alone can be believed.
        if received == limit {
            return Err(Refusal::plain(Kind::Changed));
        }
        if received != file.size {
            let reason = format!("Nomad did not give its {} bytes", file.size);
            return Err(Refusal::unreadable(reason));
        }
        place.flush().await.map_err(|error| Refusal::unwritable(&error))?;
        place.sync_all().await.map_err(|error| Refusal::unwritable(&error))?;
        Ok(hexadecimal::encode(&hash.finalize()))
    }

    /// Whether there is time, and room on the disk for `more` bytes.
    fn room(&self, more: u64, taking: &Taking) -> Result<(), Refusal> {
        if Instant::now() >= self.deadline {
            return Err(Refusal::plain(Kind::Time));
        }
        let free = taking.free().map_err(|error| Refusal::unwritable(&error))?;
        if free < self.reserve.saturating_add(more) { Err(Refusal::plain(Kind::Room)) } else { Ok(()) }
    }
}
