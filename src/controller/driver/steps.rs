//! Where steps run.

use std::future::Future;

use tokio_util::task::TaskTracker;

/// Runs each step in a task of its own; the simulator runs them itself, one at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct Steps {
    tasks: TaskTracker,
    #[cfg(test)]
    held: Option<tokio::sync::mpsc::UnboundedSender<Held>>,
}

/// A step that somebody else runs.
#[cfg(test)]
pub(super) type Held = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Steps {
    /// Hands every step to whoever has the other end.
    #[cfg(test)]
    pub(super) fn hold(sender: tokio::sync::mpsc::UnboundedSender<Held>) -> Self {
        Self { held: Some(sender), ..Self::default() }
    }

    /// Runs a step.
    pub(super) fn spawn(&self, step: impl Future<Output = ()> + Send + 'static) {
        #[cfg(test)]
        if let Some(held) = &self.held {
            // The simulated agent may have died.
            drop(held.send(Box::pin(step)));
            return;
        }
        self.tasks.spawn(step);
    }

    /// Waits until no step is under way. No more may follow.
    pub(super) async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
