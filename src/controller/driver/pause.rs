//! What operators ask of the whole queue: that it stops, or that it goes on.

use tokio::sync::oneshot;

use super::Driver;
use crate::{queue::Paused, store};

/// That nothing more is launched, or that it goes on; answered once that is on record.
#[derive(Debug)]
pub struct PauseOrder {
    /// Who stops it and why; `None` lets it go on.
    pub paused: Option<Paused>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<(), store::Error>>,
}

impl Driver {
    pub(super) async fn pause_as_ordered(&mut self, order: PauseOrder) {
        let PauseOrder { paused, reply } = order;
        let saved = self.rooms.store.set_paused(paused.as_ref()).await;
        if saved.is_ok() {
            let said = paused.as_ref().map_or_else(|| "resumed".to_owned(), ToString::to_string);
            tracing::info!("{said}");
            self.pause(paused);
            // What `when_full` says was left undecided meanwhile.
            self.consider_all();
        }
        // Whoever asked may be gone.
        drop(reply.send(saved));
    }

    /// Holds the queue, or lets it go on. What is launched already goes on in any case.
    pub(super) fn pause(&mut self, paused: Option<Paused>) {
        self.rooms.health.pause(paused.clone());
        self.queue.pause(paused);
        self.stirred = true;
    }
}
