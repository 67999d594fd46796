//! Nomad's event stream.

use super::{Finding, Tokens};
use crate::{agent, config::Config, nomad::Kind, telemetry::chain};

const SUBJECT: &str = "nomad events";

pub(super) async fn examine(config: &Config, tokens: &Tokens) -> Vec<Finding> {
    let token = agent::token("[nomad] token_file", tokens.nomad.clone(), &config.nomad.token_file);
    // What is wrong with the token file or the address is told where Nomad itself is examined.
    let Ok(Ok(client)) = token.map(|token| agent::nomad_client(config, token)) else { return Vec::new() };
    match client.events().await {
        Ok(_) => vec![Finding::ok(SUBJECT, "the event stream opens")],
        Err(error) if error.kind() == Kind::Denied => {
            let remedy = format!("Give the agent's token read-job in namespace {}.", config.nomad.namespace);
            vec![Finding::failure(SUBJECT, chain(&error), remedy)]
        }
        Err(error) => {
            let remedy = "Look whether a proxy in front of [nomad] addr holds back streamed replies.";
            vec![Finding::warning(SUBJECT, chain(&error), remedy)]
        }
    }
}
