//! Each right of the agent's Vault policy is needed: without it, something that consign does is refused.

use std::collections::{BTreeMap, BTreeSet};

use consign::{grant, vault::Vault};
use serde_json::{Value, json};

use super::{Server, bot, name, names};

const POLICY: &str = "consign-agent";

/// What a removed right breaks: path, capability or parameter, operation.
const NEEDED: [(&str, &str, &str); 20] = [
    ("identity/entity-alias", "update", "grant a secret"),
    ("identity/entity-alias", "name", "grant a secret"),
    ("identity/entity-alias", "mount_accessor", "grant a secret"),
    ("identity/lookup/entity", "update", "withdraw"),
    ("identity/lookup/entity", "alias_name", "withdraw"),
    ("identity/lookup/entity", "alias_mount_accessor", "withdraw"),
    ("identity/entity/name/entity_*", "delete", "withdraw"),
    ("secret/metadata/runner/*", "read", "see that a secret is there"),
    ("secret/metadata/runner/*", "list", "list the secrets"),
    ("secret/metadata/bots/*", "read", "see that a bot is there"),
    ("secret/metadata/bots/*", "list", "list the bots"),
    ("identity/group/name/runner-*", "read", "see that a secret is there"),
    ("identity/group/name/runner-*", "update", "grant a secret"),
    ("identity/group/name/runner-*", "member_entity_ids", "grant a secret"),
    ("identity/group/name/bot-*", "read", "see that a bot is there"),
    ("identity/group/name/bot-*", "update", "grant a bot's token"),
    ("identity/group/name/bot-*", "member_entity_ids", "grant a bot's token"),
    ("identity/group/name/consign-go", "read", "find the auth method"),
    ("identity/group/name/consign-go", "update", "open the gate"),
    ("identity/group/name/consign-go", "member_entity_ids", "open the gate"),
];

/// The rights of a Vault policy one by one, each with what is left without it.
fn without_each(policy: &Value) -> Vec<((String, String), Value)> {
    let mut found = Vec::new();
    for (path, rules) in policy["path"].as_object().unwrap() {
        for capability in rules["capabilities"].as_array().unwrap() {
            let mut left = policy.clone();
            let capabilities = left["path"][path]["capabilities"].as_array_mut().unwrap();
            capabilities.retain(|one| one != capability);
            found.push(((path.clone(), capability.as_str().unwrap().to_owned()), left));
        }
        for parameter in rules["allowed_parameters"].as_object().into_iter().flatten().map(|(name, _)| name) {
            let mut left = policy.clone();
            let parameters = left["path"][path]["allowed_parameters"].as_object_mut().unwrap();
            parameters.remove(parameter);
            // A rule that names no parameter allows all.
            parameters.insert("none".to_owned(), json!([]));
            found.push(((path.clone(), parameter.clone()), left));
        }
    }
    found
}

/// Which of the things that consign does are refused. `round` makes the names of allocations.
async fn refused(
    agent: &Vault,
    grants: &grant::Grants,
    root: &Vault,
    round: usize,
) -> BTreeSet<&'static str> {
    let allocation = |what: &str| format!("{what}-{round}");
    let accessor = root.auth_method("jwt-nomad").await.unwrap().unwrap().accessor;
    root.create_alias(&allocation("over"), &accessor).await.unwrap().unwrap();
    let (secret, bots) = (names(&["A"]), [bot("a")]);
    let done = [
        ("find the auth method", grant::mount_accessor(agent, "consign-go").await.is_ok()),
        ("see that a secret is there", grants.unknown_secrets(&secret).await.is_ok()),
        ("see that a bot is there", grants.unknown_secrets(&bots).await.is_ok()),
        ("list the secrets", agent.entries("secret", "runner").await.is_ok()),
        ("list the bots", agent.entries("secret", "bots").await.is_ok()),
        ("grant a secret", grants.issue(&allocation("secret"), &secret).await.is_ok()),
        ("grant a bot's token", grants.issue(&allocation("bot"), &bots).await.is_ok()),
        ("open the gate", grants.issue(&allocation("gate"), &[]).await.is_ok()),
        ("withdraw", grants.withdraw(&allocation("over")).await.is_ok()),
    ];
    done.into_iter().filter(|(_, done)| !done).map(|(what, _)| what).collect()
}

#[tokio::test]
async fn each_right_of_the_agents_policy_is_needed() {
    let server = Server::start().await;
    let root = server.root();
    let (agent, grants) = server.ready().await;
    server.secrets().put(&name("A"), b"x").await.unwrap();
    server.secrets().put(&bot("a"), b"x").await.unwrap();
    assert_eq!(refused(&agent, &grants, &root, 0).await, BTreeSet::new());

    let policy: Value = hcl::from_str(&root.policy(POLICY).await.unwrap().unwrap()).unwrap();
    let mut needed: BTreeMap<_, _> =
        NEEDED.into_iter().map(|(path, right, what)| ((path.to_owned(), right.to_owned()), what)).collect();
    let mut wrong = Vec::new();
    for (round, (right, left)) in without_each(&policy).into_iter().enumerate() {
        root.write_policy(POLICY, &left.to_string()).await.unwrap();
        let refused = refused(&agent, &grants, &root, round + 1).await;
        if !needed.remove(&right).is_some_and(|what| refused.contains(what)) {
            wrong.push((right, refused));
        }
    }
    assert_eq!(wrong, Vec::new(), "rights that nothing needs, or something else than the table says");
    assert_eq!(needed, BTreeMap::new(), "the policy does not have these");
}
