//! The forge: pull requests, their reviews, commit statuses, and issues, as Gitea, Forgejo and GitHub have them.
//!
//! One client speaks to all of them: their APIs differ in few places, and `client` has each of those. What a
//! forge says is data to be judged ([`crate::approval::review`]), never an instruction. Whatever cannot be
//! asked, or is not understood, is an error: nothing is approved by a missing answer.

mod client;
mod error;
pub mod evidence;
mod http;
mod issues;
#[cfg(test)]
mod tests;
mod wire;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    client::{Access, Client},
    error::{Error, Right},
};
use crate::credential::Credential;

/// Whose API it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Gitea's, which is Forgejo's too.
    #[serde(alias = "forgejo")]
    Gitea,
    /// GitHub's, on github.com or a server of one's own.
    GitHub,
}

/// One repository of a forge, and how it is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose API it is.
    pub kind: Kind,
    /// Where the forge is, such as `https://git.example.org`; empty is github.com.
    pub url: String,
    /// The repository, as `owner/name`.
    pub repository: String,
    /// The token.
    pub token: Credential,
    /// A PEM file with the certificate authority.
    pub ca_cert: Option<PathBuf>,
}

/// What somebody may do in the repository; a later one includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Nothing.
    None,
    /// Read it.
    Read,
    /// Push to it.
    Write,
    /// Change its settings.
    Admin,
}

/// What a commit status says at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All is well.
    Success,
    /// Something is wrong with what was committed, or it did not succeed.
    Failure,
    /// It was not the commit's fault.
    Error,
    /// It is not decided yet.
    Pending,
}

/// One commit status. Of those with one context the latest counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What it is about; at most [`CONTEXT_LIMIT`] characters.
    pub context: String,
    /// What it says at a glance.
    pub state: State,
    /// What it says in a sentence; cut to [`DESCRIPTION_LIMIT`] characters.
    pub description: String,
}

/// How long a status's description may be, in characters: GitHub's limit, and the lowest of the three.
pub const DESCRIPTION_LIMIT: usize = 140;
/// How long a status's context may be, in characters: the databases of Gitea and GitHub hold 255.
pub const CONTEXT_LIMIT: usize = 255;
