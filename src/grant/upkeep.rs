//! Keeps the agent's token alive: renewed at half its life. A token that was replaced in its file is found by
//! the connection itself.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time,
};
use tokio_util::sync::CancellationToken;

use crate::vault::{self, Kind, Vault};

/// The longest wait before the token is looked at again.
const LONGEST: Duration = Duration::from_hours(1);
/// The shortest wait, which is also the wait after a failure.
const SHORTEST: Duration = Duration::from_secs(5);

/// A handle to the task that keeps the token alive; the task ends with the given cancellation.
#[derive(Debug, Clone)]
pub struct Upkeep {
    wake: Arc<Notify>,
    trouble: watch::Receiver<Option<String>>,
}

impl Upkeep {
    /// Starts to keep the token of `vault` alive.
    #[must_use]
    pub fn spawn(vault: Vault, ending: CancellationToken) -> Self {
        let wake = Arc::new(Notify::new());
        let (report, trouble) = watch::channel(None);
        let task = Task { vault, wake: Arc::clone(&wake), report };
        tokio::spawn(async move { ending.run_until_cancelled(task.run()).await });
        Self { wake, trouble }
    }

    /// Looks at the token now: for whoever has just been refused.
    pub fn look_now(&self) {
        self.wake.notify_one();
    }

    /// What is wrong with the token, in one sentence; `None` while all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }
}

struct Task {
    vault: Vault,
    wake: Arc<Notify>,
    report: watch::Sender<Option<String>>,
}

impl Task {
    async fn run(self) {
        loop {
            let wait = match self.look().await {
                Ok(wait) => {
                    self.report.send_replace(None);
                    wait
                }
                Err(trouble) => {
                    let before = self.report.send_replace(Some(trouble.clone()));
                    if before.as_ref() != Some(&trouble) {
                        tracing::warn!(%trouble, "the Vault token cannot be kept alive");
                    }
                    SHORTEST
                }
            };
            // A wake-up right after a look would have found what that look found.
            time::sleep(SHORTEST.min(wait)).await;
            drop(time::timeout(wait.saturating_sub(SHORTEST), self.wake.notified()).await);
        }
    }

    /// Looks at the token and renews it; gives the time until the next look.
    async fn look(&self) -> Result<Duration, String> {
        self.renew().await.map_err(|error| self.describe(&error))
    }

    async fn renew(&self) -> Result<Duration, vault::Error> {
        let facts = self.vault.lookup_self().await?;
        let ttl = if facts.renewable { self.vault.renew_self().await? } else { facts.ttl };
        Ok(next_look(ttl))
    }

    fn describe(&self, error: &vault::Error) -> String {
        if error.kind() != Some(Kind::Denied) {
            return error.to_string();
        }
        let credential = self.vault.credential();
        let Some(file) = credential.file() else {
            return "Vault refuses the token, and no token file is configured".to_owned();
        };
        match credential.read_again(None) {
            Err(unread) => format!("Vault refuses the token, and {}: {unread}", file.display()),
            Ok(_) => format!("Vault refuses the token: {error}"),
        }
    }
}

/// Half the time that the token still lives; a token that never ends is looked at all the same.
fn next_look(ttl: Duration) -> Duration {
    if ttl.is_zero() { LONGEST } else { (ttl / 2).clamp(SHORTEST, LONGEST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_renewed_at_half_its_life() {
        assert_eq!(next_look(Duration::from_mins(10)), Duration::from_mins(5));
        assert_eq!(next_look(Duration::from_hours(24)), LONGEST);
        assert_eq!(next_look(Duration::from_secs(1)), SHORTEST);
        assert_eq!(next_look(Duration::ZERO), LONGEST);
    }
}
