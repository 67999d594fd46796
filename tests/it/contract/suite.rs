//! What consign relies on of Nomad and Vault: one suite for the real servers and for the simulator's stand-ins.

use std::collections::BTreeMap;

use consign::{
    ids::DispatchId,
    nomad::{Allocation, Client, Error, client_status, desired_status},
    track::judge::{self, Progress},
    vault::Vault,
};

/// What differs between a real server and a stand-in.
pub(crate) trait Setting {
    /// Lets some time pass.
    async fn wait(&self);
    /// Lets a placed allocation start.
    async fn open(&self, allocation: &str);
}

/// How often something is looked for.
const LOOKS: usize = 1200;

async fn until<T>(setting: &impl Setting, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    for _ in 0..LOOKS {
        if let Some(found) = look().await {
            return found;
        }
        setting.wait().await;
    }
    panic!("{what} never came");
}

/// Nomad, with a parameterized job `parent` that takes the meta `secrets` and runs its payload.
pub(crate) async fn nomad(nomad: &Client, parent: &str, setting: &impl Setting) {
    let meta = BTreeMap::from([("secrets".to_owned(), String::new())]);
    let token = DispatchId::new().to_string();
    let prefix = format!("{parent}/dispatch-{token}-");
    let child = nomad.dispatch(parent, &token, &meta, b"true").await.unwrap();
    assert!(child.starts_with(&prefix), "{child}");
    let again = nomad.dispatch(parent, &token, &meta, b"true").await.unwrap();
    assert_eq!(again, child, "one token makes one child");
    let listed = nomad.children(&prefix).await.unwrap();
    assert_eq!(listed.iter().map(|listed| &listed.id).collect::<Vec<_>>(), [&child]);
    assert_eq!(listed[0].meta.get("secrets").map(String::as_str), Some(""));
    let record = nomad.child(&child).await.unwrap().unwrap();
    assert_eq!((record.parent_id.as_str(), record.dispatch_idempotency_token), (parent, token));

    let absent = format!("{child}0");
    assert_eq!(nomad.child(&absent).await.unwrap(), None);
    assert_eq!(nomad.job_allocations(&absent).await.unwrap(), []);
    nomad.deregister(&absent).await.unwrap();
    let refused = nomad.dispatch("nobody", "token", &meta, b"true").await;
    assert!(matches!(refused, Err(Error::Status { .. })), "{refused:?}");

    let first = async |child: &str| nomad.job_allocations(child).await.unwrap().into_iter().next();
    let placed = until(setting, "the allocation", async || first(&child).await).await;
    assert_eq!((&placed.job_id, placed.desired_status.as_str()), (&child, desired_status::RUN));
    setting.open(&placed.id).await;
    let is_over = |allocation: &Allocation| judge::progress(allocation) == Progress::Terminal;
    let ended = until(setting, "its end", async || first(&child).await.filter(is_over)).await;
    assert!(judge::has_started(&ended) && ended.modify_index > placed.modify_index);
    let task = ended.task_states.values().next().unwrap();
    assert_eq!(task.state, "dead");
    let succeeded = task.exit_code() == Some(0);
    assert_eq!((ended.client_status == client_status::COMPLETE, task.failed), (succeeded, !succeeded));
    let pattern = format!("^{parent}/dispatch-");
    let gone = async || nomad.live_children(parent, &pattern).await.unwrap().is_empty().then_some(());
    until(setting, "a list without it", gone).await;
    assert_eq!(nomad.live_allocations(&pattern).await.unwrap(), []);
    let name = judge::task_name(&ended).unwrap();
    assert!(nomad.log_tail(&ended.id, name, 100).await.unwrap().is_some());
    let nowhere = "00000000-0000-4000-8000-000000000000";
    assert_eq!(nomad.log_tail(nowhere, name, 100).await.unwrap(), None);

    // What is stopped is complete as well: complete is not success.
    let token = DispatchId::new().to_string();
    let stopped = nomad.dispatch(parent, &token, &meta, b"sleep 600").await.unwrap();
    assert_ne!(stopped, child);
    let placed = until(setting, "the allocation", async || first(&stopped).await).await;
    assert_eq!(nomad.live_children(parent, &pattern).await.unwrap().len(), 1);
    assert_eq!(nomad.live_allocations(&pattern).await.unwrap()[0].id, placed.id);
    nomad.deregister(&stopped).await.unwrap();
    let ended = until(setting, "its end", async || first(&stopped).await.filter(is_over)).await;
    let dead = async || nomad.child(&stopped).await.unwrap().filter(|child| child.status == "dead");
    assert!(until(setting, "its death", dead).await.stop);
    let statuses = (ended.client_status.as_str(), ended.desired_status.as_str());
    assert_eq!(statuses, (client_status::COMPLETE, desired_status::STOP));
}

/// Vault, with an auth method's `accessor` and an empty identity group.
pub(crate) async fn vault(vault: &Vault, accessor: &str, group: &str) {
    let alias = DispatchId::new().to_string();
    let members = async || vault.group(group).await.unwrap().unwrap().member_entity_ids;
    assert_eq!(vault.entity_by_alias(&alias, accessor).await.unwrap(), None);
    let id = vault.create_alias(&alias, accessor).await.unwrap().unwrap();
    assert_eq!(vault.create_alias(&alias, accessor).await.unwrap(), None, "whoever comes later is told so");
    let entity = vault.entity_by_alias(&alias, accessor).await.unwrap().unwrap();
    assert_eq!(entity.id, id);

    assert_eq!(members().await, [""; 0]);
    vault.set_group_members(group, std::slice::from_ref(&id)).await.unwrap();
    assert_eq!(members().await, [id.as_str()]);
    vault.delete_entity(&entity.name).await.unwrap();
    assert_eq!(members().await, [""; 0], "the group drops it");
    assert_eq!(vault.entity_by_alias(&alias, accessor).await.unwrap(), None);
    vault.delete_entity(&entity.name).await.unwrap();

    let refused = vault.set_group_members(group, std::slice::from_ref(&id)).await.unwrap_err();
    assert_eq!(refused.missing_entity(), Some(id.as_str()), "{refused}");
    assert_eq!(vault.group(&format!("{group}-absent")).await.unwrap(), None);
}
