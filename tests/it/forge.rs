//! Approval by reviewed pull requests, on a real Gitea.

mod evidence;
