//! Approval by reviewed pull requests, on a real Gitea.

mod agent;
mod evidence;
mod statuses;
