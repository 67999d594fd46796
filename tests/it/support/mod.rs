//! What the tests stand on: shared servers, container images, a world of its own for each test, git, and waiting.

mod agent;
mod audit;
mod browser;
mod canary;
mod failures;
mod git;
mod git_http;
pub(crate) mod gitea;
mod http;
pub(crate) mod images;
mod nomad_api;
mod oracles;
mod own;
mod program;
mod proxy;
mod random;
mod result;
mod shared;
mod token;
mod wait;
mod world;

pub(crate) use agent::{Agent, action, is_ready};
pub(crate) use browser::Browser;
pub(crate) use canary::Canaries;
pub(crate) use failures::tell_failures;
pub(crate) use git::{Git, mirror};
pub(crate) use git_http::GitHttp;
pub(crate) use gitea::Gitea;
pub(crate) use http::http;
pub(crate) use nomad_api::NomadApi;
pub(crate) use oracles::{Accepted, Ends};
#[cfg(feature = "fail-points")]
pub(crate) use oracles::{Breach, untold};
pub(crate) use own::OwnServers;
pub(crate) use program::write_program;
pub(crate) use proxy::{Fault, Proxy};
pub(crate) use random::Random;
#[cfg(feature = "fail-points")]
pub(crate) use random::seed;
pub(crate) use result::{ends, ends_saying, ends_with_code};
pub(crate) use shared::{Servers, docker, servers, servers_with_docker};
pub(crate) use wait::{LIMIT, look_every, wait_for};
pub(crate) use world::World;
