//! Client nodes, as far as they are read here.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::model::lenient;

/// What one client node has to offer, from its own page.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeDetail {
    /// Its name.
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    /// `ready`, `down`, `initializing` or `disconnected`.
    #[serde(deserialize_with = "lenient")]
    pub status: String,
    /// Its host volumes, by name.
    #[serde(deserialize_with = "lenient")]
    pub host_volumes: BTreeMap<String, HostVolume>,
    /// Its resources.
    #[serde(deserialize_with = "lenient")]
    pub node_resources: NodeResources,
}

/// A host volume of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostVolume {
    /// Whether it can only be read.
    #[serde(deserialize_with = "lenient")]
    pub read_only: bool,
}

/// The resources of a node, as far as they are read here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeResources {
    /// Its devices, in groups of one kind.
    #[serde(deserialize_with = "lenient")]
    pub devices: Vec<NodeDevices>,
}

/// Devices of one kind on a node.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeDevices {
    /// Who makes them.
    #[serde(deserialize_with = "lenient")]
    pub vendor: String,
    /// What they are, such as `gpu`.
    #[serde(rename = "Type", deserialize_with = "lenient")]
    pub kind: String,
    /// Their model.
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    /// Each of them.
    #[serde(deserialize_with = "lenient")]
    pub instances: Vec<serde::de::IgnoredAny>,
}

/// One client node.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Node {
    /// Its id, a UUID.
    #[serde(rename = "ID", deserialize_with = "lenient")]
    pub id: String,
    /// Its name.
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    /// `ready`, `down`, `initializing` or `disconnected`.
    #[serde(deserialize_with = "lenient")]
    pub status: String,
    /// Its Nomad version.
    #[serde(deserialize_with = "lenient")]
    pub version: String,
    /// `eligible` or `ineligible`.
    #[serde(deserialize_with = "lenient")]
    pub scheduling_eligibility: String,
    /// Its task drivers, by name.
    #[serde(deserialize_with = "lenient")]
    pub drivers: BTreeMap<String, DriverState>,
}

/// A task driver on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DriverState {
    /// Whether it is there.
    #[serde(deserialize_with = "lenient")]
    pub detected: bool,
    /// Whether it works.
    #[serde(deserialize_with = "lenient")]
    pub healthy: bool,
    /// What Nomad says of it, such as `Healthy` or why it is not.
    #[serde(deserialize_with = "lenient")]
    pub health_description: String,
}
