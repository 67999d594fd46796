//! The host volumes of the configured mounts: which nodes offer them.

use super::{Finding, Tokens};
use crate::{
    agent,
    config::Config,
    dispatch::{
        mount::{Alias, Settings},
        needs::Offer,
        nodes,
    },
    nomad::Kind,
    telemetry::chain,
};

const SUBJECT: &str = "mounts";
/// The aliases that are configured without anybody's doing. A cluster need not have their volumes.
const SHIPPED: [&str; 3] = ["gpg", "sops", "ssh"];

pub(super) async fn examine(config: &Config, tokens: &Tokens) -> Vec<Finding> {
    // What is wrong with the token or the address is told where Nomad is examined.
    let Ok(token) = agent::token("[nomad] token_file", tokens.nomad.clone(), &config.nomad.token_file) else {
        return Vec::new();
    };
    let Ok(client) = agent::nomad_client(config, token) else { return Vec::new() };
    match nodes::read(&client).await {
        Ok(nodes) => config.mounts.iter().map(|(alias, mount)| judge(alias, mount, &nodes)).collect(),
        Err(error) if error.kind() == Kind::Denied => {
            let remedy = "Give the agent's token, in an ACL policy: node { policy = \"read\" }";
            vec![Finding::failure(SUBJECT, format!("reading nodes: {}", chain(&error)), remedy)]
        }
        Err(_) => Vec::new(),
    }
}

fn judge(alias: &Alias, mount: &Settings, nodes: &[Offer]) -> Finding {
    let volume = mount.volume.as_str();
    let offering = || nodes.iter().filter(|node| node.volumes.contains_key(volume));
    let fitting: Vec<&str> = offering()
        .filter(|node| mount.read_only || node.volumes.get(volume) == Some(&false))
        .map(|node| node.node.as_str())
        .collect();
    if !fitting.is_empty() {
        let names = fitting.join(", ");
        return Finding::ok(SUBJECT, format!("{alias}: host volume {volume} is offered by {names}"));
    }
    let remedy = format!(
        "Where there is such a folder, put this into the node's Nomad configuration and restart its client:\n\
         client {{\n  host_volume \"{volume}\" {{\n    path      = \"/srv/consign/{volume}\"\n    read_only = {}\n  }}\n}}",
        mount.read_only
    );
    let message = if offering().next().is_some() {
        format!(
            "{alias}: host volume {volume} can only be read where it is offered, and [mounts.{alias}] writes to it"
        )
    } else {
        format!(
            "{alias}: no node offers the host volume {volume}: an action with this mount ends with missing_mount"
        )
    };
    if SHIPPED.contains(&alias.as_str()) {
        Finding::warning(SUBJECT, message, remedy)
    } else {
        Finding::failure(SUBJECT, message, remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_volume_that_no_node_offers_has_its_block_as_remedy() {
        let alias = |text: &str| Alias::try_from(text.to_owned()).unwrap();
        let mount =
            |text: &str| toml::from_str::<Settings>(&format!("destination = \"/x\"\n{text}")).unwrap();
        let node = |read_only: bool| Offer {
            node: "a".to_owned(),
            volumes: [("data".to_owned(), read_only)].into(),
            devices: Vec::new(),
        };
        let reading = mount("volume = \"data\"\n");
        let writing = mount("volume = \"data\"\nread_only = false\n");
        assert_eq!(judge(&alias("m"), &reading, &[node(true)]).level, Level::Ok);
        assert_eq!(judge(&alias("m"), &writing, &[node(true), node(false)]).level, Level::Ok);
        assert!(judge(&alias("m"), &writing, &[node(true)]).message.contains("only be read"));
        let missing = judge(&alias("m"), &reading, &[]);
        assert_eq!(missing.level, Level::Failure);
        let remedy = missing.remedy.unwrap();
        assert!(remedy.contains("host_volume \"data\" {") && remedy.contains("read_only = true"), "{remedy}");
        assert_eq!(judge(&alias("ssh"), &reading, &[]).level, Level::Warning);
    }
}
