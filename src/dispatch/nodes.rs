//! What the nodes of the cluster have, asked of Nomad.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{sync::Mutex, time::Instant};

use super::needs::{DeviceGroup, Needs, Offer};
use crate::{
    nomad::{self, NodeDetail},
    outcome::Cause,
};

/// How long what was read of the nodes may answer that they have something. That they lack it is always
/// read anew.
const FRESH: Duration = Duration::from_mins(1);
/// How many nodes are asked for at a time.
const AT_ONCE: usize = 8;

/// The nodes, as they were last read.
#[derive(Debug, Default)]
pub struct Nodes {
    known: Mutex<Option<(Instant, Vec<Offer>)>>,
}

impl Nodes {
    /// What no node has of `needs`, and what they have instead; `None` where nothing is missing, or where the
    /// token may not read nodes, so that placement will tell.
    pub async fn unmet(
        &self,
        nomad: &nomad::Client,
        needs: &Needs,
    ) -> Result<Option<(Cause, String)>, nomad::Error> {
        if needs.is_empty() {
            return Ok(None);
        }
        if let Some(refused) = needs.impossible() {
            return Ok(Some(refused));
        }
        let mut known = self.known.lock().await;
        if let Some((read_at, nodes)) = known.as_ref()
            && read_at.elapsed() < FRESH
            && needs.unmet(nodes).is_none()
        {
            return Ok(None);
        }
        let nodes = match read(nomad).await {
            Ok(nodes) => nodes,
            Err(error) if error.kind() == nomad::Kind::Denied => {
                tracing::warn!(%error, "cannot see what the nodes have; give the token `node {{ policy = \"read\" }}`");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let unmet = needs.unmet(&nodes);
        *known = Some((Instant::now(), nodes));
        Ok(unmet)
    }
}

/// Reads what every node that Nomad knows has, away or not.
pub async fn read(nomad: &nomad::Client) -> Result<Vec<Offer>, nomad::Error> {
    let nodes = nomad.nodes().await?;
    let details: Vec<Option<NodeDetail>> = stream::iter(nodes)
        .map(async |node| nomad.node(&node.id).await)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(details.into_iter().flatten().map(offer).collect())
}

fn offer(node: NodeDetail) -> Offer {
    let volumes = node.host_volumes.into_iter().map(|(name, volume)| (name, volume.read_only)).collect();
    let devices = node.node_resources.devices.into_iter().map(|group| DeviceGroup {
        name: format!("{}/{}/{}", group.vendor, group.kind, group.name),
        instances: u64::try_from(group.instances.len()).unwrap_or(u64::MAX),
    });
    Offer { node: node.name, volumes, devices: devices.collect() }
}
