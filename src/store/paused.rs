//! Whether launching is paused.

use super::{Error, Store};
use crate::queue::Paused;

/// The setting that says who paused it and why, as JSON; empty where nobody did.
const PAUSED: &str = "paused";

impl Store {
    /// Who paused the launching, where somebody did.
    pub async fn paused(&self) -> Result<Option<Paused>, Error> {
        let text = self.get(PAUSED).await?.filter(|text| !text.is_empty());
        let read = |text: String| serde_json::from_str(&text);
        text.map(read).transpose().map_err(|source| Error::Setting { name: PAUSED, source })
    }

    /// Puts on record that it is paused, or not.
    pub async fn set_paused(&self, paused: Option<&Paused>) -> Result<(), Error> {
        let text = paused.map(serde_json::to_string).transpose();
        let text = text.map_err(|source| Error::Setting { name: PAUSED, source })?;
        self.set(PAUSED, &text.unwrap_or_default()).await
    }
}
