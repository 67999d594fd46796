//! Tokens: what the present one may do, its renewal, and making one for the agent.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};

use super::{
    client::{Vault, lacks, texts},
    error::Error,
};

/// What Vault says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFacts {
    /// Its Vault policies.
    pub policies: Vec<String>,
    /// How long it still lives; zero where it never ends, as a root token.
    pub ttl: Duration,
    /// What each renewal gives it; zero where it is not periodic.
    pub period: Duration,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// Whether it outlives the token that made it.
    pub orphan: bool,
}

impl Vault {
    /// What Vault says of the token that requests carry.
    pub async fn lookup_self(&self) -> Result<TokenFacts, Error> {
        let path = "auth/token/lookup-self";
        let data = self.read(path).await?.ok_or_else(|| lacks("GET", path, "data"))?;
        Ok(TokenFacts {
            policies: texts(&data["policies"]),
            ttl: seconds(&data["ttl"]),
            period: seconds(&data["period"]),
            renewable: data["renewable"] == Value::Bool(true),
            orphan: data["orphan"] == Value::Bool(true),
        })
    }

    /// Renews the token that requests carry; gives how long it lives now.
    pub async fn renew_self(&self) -> Result<Duration, Error> {
        let response = self.write("auth/token/renew-self", &json!({})).await?;
        Ok(seconds(&response.body["auth"]["lease_duration"]))
    }

    /// Ends the token that requests carry.
    pub async fn revoke_self(&self) -> Result<(), Error> {
        self.write("auth/token/revoke-self", &json!({})).await.map(drop)
    }

    /// Makes a periodic orphan token with `policies` and Vault's default policy.
    pub async fn create_orphan_token(
        &self,
        policies: &[String],
        period: Duration,
        display_name: &str,
    ) -> Result<SecretString, Error> {
        let path = "auth/token/create-orphan";
        let body = json!({
            "policies": policies,
            "period": format!("{}s", period.as_secs()),
            "display_name": display_name,
        });
        let response = self.write(path, &body).await?;
        let token = response.body["auth"]["client_token"].as_str();
        token.map(SecretString::from).ok_or_else(|| lacks("POST", path, "client_token"))
    }
}

fn seconds(value: &Value) -> Duration {
    Duration::from_secs(value.as_u64().unwrap_or_default())
}
