//! Hears of Nomad: the event stream for speed, a periodic scan for truth.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{driver::Message, health::Subject, step::Rooms};
use crate::{
    dispatch::launch::children_pattern,
    nomad::{self, Allocation},
    retry::Pause,
};

/// How often Nomad is scanned. The stream brings changes within milliseconds; the scan finds what the
/// stream dropped.
const INTERVAL: Duration = Duration::from_secs(10);

/// What one scan found.
#[derive(Debug)]
pub(super) struct Scan {
    /// When it began: what was dispatched later may be missing.
    pub began_at: Timestamp,
    /// The children that are not dead.
    pub children: Vec<String>,
    /// The allocations that may still change.
    pub allocations: Vec<Allocation>,
}

/// Follows Nomad until `ending`, through every outage.
pub(super) async fn follow(rooms: Arc<Rooms>, inbox: mpsc::Sender<Message>, ending: CancellationToken) {
    let mut pause = Pause::new(Duration::from_millis(200), Duration::from_secs(5));
    while !ending.is_cancelled() {
        let ended = tokio::select! {
            () = ending.cancelled() => return,
            ended = follow_stream(&rooms, &inbox, &mut pause) => ended,
        };
        if let Err(error) = ended {
            rooms.health.report(Subject::Nomad, crate::telemetry::chain(&error));
            tokio::select! {
                () = ending.cancelled() => return,
                () = tokio::time::sleep(pause.wait()) => {}
            }
        }
    }
}

/// Follows one stream to its end, with a scan at its start and one every [`INTERVAL`].
async fn follow_stream(
    rooms: &Rooms,
    inbox: &mpsc::Sender<Message>,
    pause: &mut Pause,
) -> Result<(), nomad::Error> {
    let mut stream = rooms.nomad.events().await?;
    let mut next_scan = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(next_scan) => {
                let scan = scan(rooms).await?;
                rooms.health.clear(Subject::Nomad);
                pause.reset();
                if inbox.send(Message::Scanned(scan)).await.is_err() {
                    return Ok(());
                }
                next_scan = Instant::now() + INTERVAL;
            }
            events = stream.next() => {
                let Some(events) = events? else { return Ok(()) };
                if inbox.send(Message::Heard(events)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

pub(super) async fn scan(rooms: &Rooms) -> Result<Scan, nomad::Error> {
    let mut scan = Scan { began_at: super::now(), children: Vec::new(), allocations: Vec::new() };
    for base in rooms.base_jobs.names() {
        let pattern = children_pattern(base);
        let children = rooms.nomad.live_children(base, &pattern).await?;
        scan.children.extend(children.into_iter().map(|child| child.id));
        scan.allocations.extend(rooms.nomad.live_allocations(&pattern).await?);
    }
    Ok(scan)
}
