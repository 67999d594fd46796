//! The clocks of this host, Nomad and Vault: deadlines and tokens' lifetimes rely on them.

use jiff::Timestamp;

use super::Finding;
use crate::{agent, config::Config, credential::Credential};

const SUBJECT: &str = "clocks";
/// More difference than this is a warning, in seconds.
const TOLERATED: i64 = 30;

pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    // Servers tell the time without a token. What cannot be reached is told elsewhere.
    let nomad = async {
        let client = agent::nomad_client(config, Credential::default()).ok()?;
        let time = client.server_time().await.ok().flatten()?;
        Some(judge("Nomad", time, Timestamp::now()))
    };
    let vault = async {
        let client = agent::vault_client(config, Credential::default()).ok()?;
        let time = client.server_time().await.ok().flatten()?;
        Some(judge("Vault", time, Timestamp::now()))
    };
    let (nomad, vault) = tokio::join!(nomad, vault);
    nomad.into_iter().chain(vault).collect()
}

fn judge(server: &str, there: Timestamp, here: Timestamp) -> Finding {
    let ahead = there.as_second() - here.as_second();
    if ahead.abs() <= TOLERATED {
        return Finding::ok(SUBJECT, format!("this host and {server} agree on the time"));
    }
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    let message = format!("the clock of {server} is {} s {direction} this host's", ahead.abs());
    Finding::warning(SUBJECT, message, "timedatectl set-ntp true, on both hosts.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn clocks_that_differ_by_more_than_half_a_minute_warn() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(judge("Nomad", at(1_030), at(1_000)).level, Level::Ok);
        let ahead = judge("Nomad", at(1_031), at(1_000));
        assert_eq!(ahead.level, Level::Warning);
        assert_eq!(ahead.message, "the clock of Nomad is 31 s ahead of this host's");
        assert!(judge("Vault", at(900), at(1_000)).message.contains("100 s behind"));
    }
}
