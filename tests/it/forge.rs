//! Approval by reviewed pull requests, and triggers by issues, on a real Gitea.

mod agent;
mod evidence;
mod issues;
mod statuses;
