//! The forges that review pull requests, and what their tokens may do.

use std::collections::BTreeSet;

use super::Finding;
use crate::{
    agent,
    approval::{Requirement, Rule, review::Person},
    config::{self, Config},
    forge::{Client, Error},
    telemetry::chain,
};

const SUBJECT: &str = "forge";

pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let forges = match agent::forges(config) {
        Ok(forges) => forges,
        Err(error) => return vec![Finding::failure(SUBJECT, error.to_string(), "Look at [forge].")],
    };
    let approval = &config.approval;
    let tiers = [approval.low, approval.medium, approval.high];
    let asked = tiers.into_iter().chain(approval.rule.iter().filter_map(|rule| rule.require));
    if forges.is_empty() && asked.into_iter().any(|requirement| requirement == Requirement::Review) {
        return vec![Finding::warning(
            SUBJECT,
            "[approval] asks for reviews, and no forge is configured: such actions wait",
            "Add a section [forge.<name>], or change [approval].",
        )];
    }
    let mut findings = Vec::new();
    for (name, client) in &forges {
        let Some(settings) = config.forge.get(name) else { continue };
        let is_meant = |rule: &&Rule| rule.forge.as_ref().is_none_or(|forge| forge == name);
        let rules: Vec<&Rule> = approval.rule.iter().filter(is_meant).collect();
        findings.extend(one(name, client, settings, &rules, &config.ops.branch).await);
    }
    findings
}

/// One forge. What the token lacks is told by whatever needs it.
async fn one(
    name: &str,
    client: &Client,
    settings: &config::Forge,
    rules: &[&Rule],
    branch: &str,
) -> Vec<Finding> {
    let failure = |error: &Error| {
        let remedy = match error {
            Error::Rights { right, kind, .. } => right.remedy(*kind).to_owned(),
            _ => format!("Is the forge up, and is [forge.{name}] right?"),
        };
        Finding::failure(SUBJECT, format!("{name}: {}", chain(error)), remedy)
    };
    let repository = client.repository();
    let access = match client.access().await {
        Ok(access) => access,
        Err(error) => return vec![failure(&error)],
    };
    let mut findings = vec![match client.branch_tip(branch).await {
        Ok(Some(tip)) => Finding::ok(SUBJECT, format!("{name}: {repository} has branch {branch} at {tip}")),
        Ok(None) => Finding::failure(
            SUBJECT,
            format!("{name}: {repository} has no branch {branch}"),
            format!("Set [forge.{name}] repository to the ops repo, or [ops] branch."),
        ),
        Err(error) => failure(&error),
    }];
    findings.extend(client.reads_timeline().await.err().map(|error| failure(&error)));
    if settings.statuses && !access.may_push {
        findings.push(Finding::failure(
            SUBJECT,
            format!("{name}: the token's account cannot write commit statuses to {repository}"),
            "Give it write access to the repository, or set statuses = false.",
        ));
    }
    let teams: BTreeSet<&String> = rules.iter().filter_map(|rule| rule.team.as_ref()).collect();
    for team in &teams {
        findings.push(match client.members(team).await {
            Ok(members) if members.is_empty() => Finding::warning(
                SUBJECT,
                format!("{name}: the team {team} has no members: nobody can approve"),
                "Add somebody to the team.",
            ),
            Ok(members) => Finding::ok(SUBJECT, format!("{name}: the team {team} has {}", members.len())),
            Err(error) => failure(&error),
        });
    }
    if teams.is_empty() || rules.iter().any(|rule| rule.admin_merge == Some(true)) {
        // Whoever it is: the question is whether the token may ask.
        let login = repository.split('/').next().unwrap_or_default().to_owned();
        findings.extend(client.permission(&Person { id: 0, login }).await.err().map(|error| failure(&error)));
    }
    findings
}
