//! `consign doctor` on real servers.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, time::Duration};

use consign::{
    agent, bootstrap,
    config::{self, Config},
    dev::servers::Port,
    doctor::{Finding, Level, Tokens, examine},
};

use crate::support::{World, wait_for};

fn config(world: &World) -> Config {
    config::read("consign.toml", &world.config_toml(), &BTreeMap::new()).unwrap()
}

async fn bootstrapped(name: &str) -> (World, Config) {
    let world = World::new(name).await;
    let config = config(&world);
    let vault = agent::vault_client(&config, world.servers.vault_token.clone()).unwrap();
    let settings = bootstrap::Settings::of(&config, Some(config.vault.token_file.clone())).unwrap();
    // Worlds share the auth method: another test may make it between this one's plan and its change.
    wait_for("the bootstrap", Duration::from_secs(20), async || {
        let changes = bootstrap::plan(&vault, &settings).await.map_err(|error| error.to_string())?;
        for change in changes {
            bootstrap::apply(&vault, &settings, &change).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    })
    .await;
    (world, config)
}

fn failures(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|finding| finding.level == Level::Failure).collect()
}

#[tokio::test]
async fn a_bootstrapped_installation_has_no_failure() {
    let (world, config) = bootstrapped("doctor").await;
    world.ops.commit("Begin", &[("actions/README", Some("")), ("formulas/a.sh", Some("true\n"))]);
    let findings = examine(&config, &Tokens::default()).await;
    assert!(failures(&findings).is_empty(), "{findings:#?}");
    let worse: Vec<_> = findings.iter().filter(|finding| finding.level != Level::Ok).collect();
    assert!(worse.iter().all(|finding| matches!(finding.subject, "store" | "mounts")), "{worse:#?}");
    for subject in
        ["configuration", "store", "git", "ops repo", "nomad", "mounts", "nomad events", "vault", "clocks"]
    {
        assert!(findings.iter().any(|finding| finding.subject == subject), "{subject}: {findings:#?}");
    }
    assert!(!config.store.path.exists(), "it changes nothing");

    let token = Some(world.servers.vault_token.clone());
    let findings = examine(&config, &Tokens { vault: token, ..Tokens::default() }).await;
    assert!(findings.iter().any(|finding| finding.message.contains("root token")), "{findings:#?}");
}

#[tokio::test]
async fn trouble_with_one_subject_hides_nothing_about_the_others() {
    let (world, mut config) = bootstrapped("doctor-bad").await;
    let nobody = Port::reserve().unwrap();
    config.vault.addr = format!("http://127.0.0.1:{}", nobody.number());
    fs::set_permissions(&config.vault.token_file, fs::Permissions::from_mode(0o644)).unwrap();
    world.nomad.run_script("runner", "true").await;
    // The clone has the branch checked out.
    config.ops.repo = world.path("ops").to_str().unwrap().to_owned();
    let findings = examine(&config, &Tokens::default()).await;

    let vault = findings.iter().find(|finding| finding.subject == "vault").unwrap();
    assert_eq!(vault.level, Level::Failure);
    assert!(vault.remedy.as_ref().unwrap().contains("[vault] addr"), "{vault:?}");
    let open = findings.iter().find(|finding| finding.message.contains("mode 0644")).unwrap();
    assert!(open.remedy.as_ref().unwrap().starts_with("chmod 600 "), "{open:?}");
    assert!(
        failures(&findings).iter().any(|finding| finding.message.contains("git refuses pushes")),
        "{findings:#?}"
    );
    assert!(
        findings.iter().any(|finding| finding.message.contains("a job runner that consign did not register")),
        "{findings:#?}"
    );
}
