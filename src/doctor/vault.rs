//! Vault: reachable, open, and set up for the agent's token.

use super::{Finding, Level, Tokens, version};
use crate::{
    agent,
    config::Config,
    grant,
    telemetry::chain,
    vault::{Health, Kind, TokenFacts, Vault},
};

const SUBJECT: &str = "vault";
/// Versions below this one get a warning: major and minor.
const OLDEST: (u32, u32) = (1, 20);
const BOOTSTRAP: &str = "consign bootstrap --token-out FILE, and set [vault] token_file to FILE.";

pub(super) async fn examine(config: &Config, tokens: &Tokens) -> Vec<Finding> {
    let token = agent::token("[vault] token_file", tokens.vault.clone(), &config.vault.token_file);
    // Vault tells its health without a token too, which separates the two troubles.
    let carried = token.as_ref().ok().cloned().unwrap_or_default();
    let vault = match agent::vault_client(config, carried) {
        Ok(vault) => vault,
        Err(error) => {
            return vec![Finding::failure(SUBJECT, chain(&error), "Set [vault] addr and ca_cert.")];
        }
    };
    let mut findings = match vault.health().await {
        Ok(health) => judge_health(&config.vault.addr, &health),
        Err(error) => {
            let remedy = "Set [vault] addr (VAULT_ADDR), or start Vault there.";
            return vec![Finding::failure(SUBJECT, chain(&error), remedy)];
        }
    };
    if findings.iter().any(|finding| finding.level == Level::Failure) {
        return findings;
    }
    match token {
        Err(error) => findings.push(Finding::failure(SUBJECT, error.to_string(), BOOTSTRAP)),
        Ok(token) if token.token().is_none() => {
            findings.push(Finding::failure(SUBJECT, "there is no token for Vault", BOOTSTRAP));
        }
        Ok(_) => findings.extend(with_token(&vault, config).await),
    }
    findings
}

async fn with_token(vault: &Vault, config: &Config) -> Vec<Finding> {
    let facts = match vault.lookup_self().await {
        Ok(facts) => facts,
        Err(error) => {
            let remedy = match error.kind() {
                Some(Kind::Denied) => BOOTSTRAP,
                _ => "Look at the log of the Vault server at [vault] addr.",
            };
            return vec![Finding::failure(SUBJECT, chain(&error), remedy)];
        }
    };
    let mut findings = vec![judge_token(&facts)];
    let gate = &config.vault.gate;
    findings.push(match grant::mount_accessor(vault, gate).await {
        Ok(_) => Finding::ok(SUBJECT, format!("the launch gate's group {gate} is set up")),
        Err(error) => Finding::failure(SUBJECT, chain(&error), "consign bootstrap, or set [vault] gate."),
    });
    let kv = &config.vault.kv;
    for (kind, folder) in [("secrets", &config.vault.prefix), ("bots", &config.vault.bots)] {
        findings.push(match vault.entries(kv, folder).await {
            Ok(names) => {
                let count = names.iter().filter(|name| !name.ends_with('/')).count();
                Finding::ok(SUBJECT, format!("{count} {kind} below {kv}/{folder}; their names can be listed"))
            }
            Err(error) => Finding::failure(
                SUBJECT,
                chain(&error),
                "consign bootstrap, or set [vault] kv, prefix and bots.",
            ),
        });
    }
    findings
}

fn judge_health(address: &str, health: &Health) -> Vec<Finding> {
    let Health { initialized, sealed, version, .. } = health;
    if !initialized {
        return vec![Finding::failure(
            SUBJECT,
            format!("{address} is not initialized"),
            "vault operator init",
        )];
    }
    if *sealed {
        return vec![Finding::failure(SUBJECT, format!("{address} is sealed"), "vault operator unseal")];
    }
    let recent = version::parse(version).is_some_and(|(major, minor, _)| (major, minor) >= OLDEST);
    vec![if recent {
        Finding::ok(SUBJECT, format!("{address} answers, version {version}"))
    } else {
        let message = format!("{address} has version {version:?}; 1.20 and newer are tested");
        Finding::warning(SUBJECT, message, "Upgrade Vault to 1.20 or newer.")
    }]
}

fn judge_token(facts: &TokenFacts) -> Finding {
    let policies = facts.policies.join(", ");
    if facts.policies.iter().any(|policy| policy == "root") {
        return Finding::warning(SUBJECT, "the token is a root token: it may do everything", BOOTSTRAP);
    }
    let left = facts.ttl.as_secs();
    if !facts.renewable || facts.period.is_zero() {
        let message =
            format!("the token cannot be renewed for ever and ends in {left} s; Vault policies: {policies}");
        return Finding::warning(SUBJECT, message, BOOTSTRAP);
    }
    Finding::ok(SUBJECT, format!("the token is valid for {left} s and renewable; Vault policies: {policies}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_sealed_vault_fails_and_an_old_one_warns() {
        let level = |initialized, sealed, version: &str| {
            let health = Health { initialized, sealed, standby: false, version: version.to_owned() };
            judge_health("http://vault", &health)[0].level
        };
        assert_eq!(level(false, true, "1.21.2"), Level::Failure);
        assert_eq!(level(true, true, "1.21.2"), Level::Failure);
        assert_eq!(level(true, false, "1.19.5"), Level::Warning);
        assert_eq!(level(true, false, "1.20.0+ent"), Level::Ok);
        assert_eq!(level(true, false, ""), Level::Warning);
    }

    #[test]
    fn a_root_token_and_one_that_ends_warn() {
        let level = |policy: &str, period, renewable| {
            let facts = TokenFacts {
                policies: vec![policy.to_owned()],
                ttl: Duration::from_mins(1),
                period: Duration::from_secs(period),
                renewable,
                orphan: true,
            };
            judge_token(&facts).level
        };
        assert_eq!(level("root", 60, true), Level::Warning);
        assert_eq!(level("consign-agent", 0, true), Level::Warning);
        assert_eq!(level("consign-agent", 60, false), Level::Warning);
        assert_eq!(level("consign-agent", 60, true), Level::Ok);
    }
}
