//! ACL policies, for an operator's token, and the servers' versions.

use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::{Client, Error};

/// An ACL policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AclPolicy {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// What it allows, in HCL.
    pub rules: String,
    /// The workload whose identity has it, without any token.
    #[serde(rename = "JobACL", default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobBinding>,
}

/// The workload that an ACL policy is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobBinding {
    /// The job's namespace.
    pub namespace: String,
    /// The job.
    #[serde(rename = "JobID")]
    pub job_id: String,
    /// Its group; empty for all.
    pub group: String,
    /// Its task; empty for all.
    pub task: String,
}

/// How an ACL policy stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AclState {
    /// ACLs are off.
    Off,
    /// There is no such policy.
    Absent,
    /// It is there.
    Present(AclPolicy),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Members {
    members: Vec<Member>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    #[serde(default)]
    tags: std::collections::BTreeMap<String, String>,
}

impl Client {
    /// An ACL policy.
    pub async fn acl_policy(&self, name: &str) -> Result<AclState, Error> {
        let path = format!("/v1/acl/policy/{name}");
        match self.read(&format!("GET {path}"), self.request(Method::GET, &path)).await {
            Ok(policy) => Ok(AclState::Present(policy)),
            Err(Error::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(AclState::Absent),
            Err(Error::Status { text, .. }) if text.contains("ACL support disabled") => Ok(AclState::Off),
            Err(error) => Err(error),
        }
    }

    /// Writes an ACL policy over one of its name.
    pub async fn write_acl_policy(&self, policy: &AclPolicy) -> Result<(), Error> {
        let path = format!("/v1/acl/policy/{}", policy.name);
        self.send(&format!("PUT {path}"), self.request(Method::PUT, &path).json(policy)).await.map(drop)
    }

    /// The versions of all servers.
    pub async fn server_versions(&self) -> Result<Vec<String>, Error> {
        let path = "/v1/agent/members";
        let members: Members = self.read(&format!("GET {path}"), self.request(Method::GET, path)).await?;
        let versions = members.members.into_iter().filter_map(|mut member| member.tags.remove("build"));
        Ok(versions.collect())
    }
}
