//! What a job needs that a node has or has not: host volumes and devices, and who has them.

use std::collections::BTreeMap;

use hcl::{Block, Body, Expression};

use crate::{action::Driver, outcome::Cause};

/// What one registered job needs of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Host volumes.
    pub volumes: Vec<Volume>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Whether a task runs under `raw_exec`, which has no volumes.
    pub raw: bool,
}

/// A host volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The name by which clients offer it.
    pub source: String,
    /// Whether it is only read.
    pub read_only: bool,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Type, vendor/type or vendor/type/model.
    pub name: String,
    /// How many.
    pub count: u64,
}

/// What one node has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub node: String,
    /// Its host volumes, and whether they are read-only.
    pub volumes: BTreeMap<String, bool>,
    /// Its devices, in groups of one kind.
    pub devices: Vec<DeviceGroup>,
}

/// Devices of one kind on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceGroup {
    /// Vendor, type and model, with slashes between.
    pub name: String,
    /// How many there are, healthy or not.
    pub instances: u64,
}

impl Needs {
    /// What the text of a job asks for in plain words. What only Nomad's parser could tell is left out.
    #[must_use]
    pub fn read(hcl: &str) -> Self {
        let Ok(body) = hcl.parse::<Body>() else { return Self::default() };
        let mut needs = Self::default();
        let groups = blocks(&body, "job").flat_map(|job| blocks(job.body(), "group"));
        for group in groups {
            needs.volumes.extend(blocks(group.body(), "volume").filter_map(volume));
            for task in blocks(group.body(), "task") {
                needs.raw |= text(task, "driver").is_some_and(|driver| driver == Driver::RawExec.name());
                let devices =
                    blocks(task.body(), "resources").flat_map(|block| blocks(block.body(), "device"));
                needs.devices.extend(devices.filter_map(device));
            }
        }
        needs
    }

    /// Whether any node will do, as far as volumes and devices go.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.devices.is_empty()
    }

    /// What no cluster could give, in words.
    #[must_use]
    pub fn impossible(&self) -> Option<(Cause, String)> {
        let volume = self.volumes.first().filter(|_| self.raw)?;
        let message = format!(
            "the base job needs the host volume {}, and the driver raw_exec has no volumes: use docker or exec, \
             or another base job",
            volume.source
        );
        Some((Cause::MissingMount, message))
    }

    /// What no node of the cluster has, in words, with what they do have; `None` where each need is met
    /// by some node. Nodes that are away count: they may come back. Without any node nothing can be said.
    #[must_use]
    pub fn unmet(&self, nodes: &[Offer]) -> Option<(Cause, String)> {
        if nodes.is_empty() {
            return None;
        }
        let volume = self.volumes.iter().find(|volume| !nodes.iter().any(|node| offers(node, volume)));
        if let Some(Volume { source, read_only }) = volume {
            let there_read_only = nodes.iter().any(|node| node.volumes.contains_key(source));
            let message = if there_read_only {
                format!("no node has the host volume {source} for writing: where it is, it is read-only")
            } else {
                let how = if *read_only { "" } else { " for writing" };
                let volumes = nodes.iter().flat_map(|node| node.volumes.keys().cloned());
                format!("no node has the host volume {source}{how}; the nodes have {}", listed(volumes))
            };
            return Some((Cause::MissingMount, message));
        }
        let device = self.devices.iter().find(|device| most(nodes, device) < device.count)?;
        let devices = nodes
            .iter()
            .flat_map(|node| node.devices.iter().map(|group| format!("{} {}", group.instances, group.name)));
        let message =
            format!("no node has {} {}; the nodes have {}", device.count, device.name, listed(devices));
        Some((Cause::NoCapacity, message))
    }
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: std::collections::BTreeSet<String> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.into_iter().collect::<Vec<_>>().join(", ") }
}

fn offers(node: &Offer, volume: &Volume) -> bool {
    node.volumes.get(&volume.source).is_some_and(|read_only| volume.read_only || !read_only)
}

/// The most devices of one group that any node has: Nomad takes all of a request from one group.
fn most(nodes: &[Offer], device: &Device) -> u64 {
    let groups = nodes.iter().flat_map(|node| &node.devices);
    let fitting = groups.filter(|group| is_named(&group.name, &device.name));
    fitting.map(|group| group.instances).max().unwrap_or_default()
}

/// Whether a group of devices goes by a name: type, vendor/type or vendor/type/model.
/// <https://developer.hashicorp.com/nomad/docs/job-specification/device#device-parameters>
fn is_named(group: &str, name: &str) -> bool {
    let group: Vec<&str> = group.splitn(3, '/').collect();
    let name: Vec<&str> = name.splitn(3, '/').collect();
    match name[..] {
        [kind] => group.get(1) == Some(&kind),
        _ => group.starts_with(&name),
    }
}

fn volume(block: &Block) -> Option<Volume> {
    if text(block, "type")? != "host" {
        return None;
    }
    let read_only = attribute(block, "read_only") == Some(&Expression::Bool(true));
    Some(Volume { source: text(block, "source")?, read_only })
}

fn device(block: &Block) -> Option<Device> {
    let count = match attribute(block, "count") {
        Some(Expression::Number(number)) => number.as_u64()?,
        Some(_) => return None,
        // Nomad's default.
        None => 1,
    };
    Some(Device { name: block.labels().first()?.as_str().to_owned(), count })
}

fn text(block: &Block, key: &str) -> Option<String> {
    match attribute(block, key)? {
        Expression::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn attribute<'block>(block: &'block Block, key: &str) -> Option<&'block Expression> {
    block.body().attributes().find(|attribute| attribute.key() == key).map(hcl::Attribute::expr)
}

fn blocks<'body>(body: &'body Body, ident: &'body str) -> impl Iterator<Item = &'body Block> {
    body.blocks().filter(move |block| block.identifier() == ident)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_exec_has_no_volumes() {
        let job = |driver: &str, volume: &str| {
            Needs::read(&format!(
                "job \"a\" {{\n group \"a\" {{\n{volume}\n task \"a\" {{\n driver = \"{driver}\"\n }}\n }}\n}}\n"
            ))
        };
        let volume = "volume \"kept\" {\n type = \"host\"\n source = \"training\"\n }";
        let (cause, message) = job("raw_exec", volume).impossible().unwrap();
        assert_eq!(cause, Cause::MissingMount);
        assert!(message.contains("the host volume training"), "{message}");
        assert_eq!(job("exec", volume).impossible(), None);
        assert_eq!(job("raw_exec", "").impossible(), None);
    }
}
