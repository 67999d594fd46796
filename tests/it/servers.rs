//! The servers that everything else is tested on.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use consign::dev::servers::{Docker, DockerOptions, Nomad, NomadOptions, Role, Vault, VaultOptions};
use secrecy::ExposeSecret as _;

use crate::support::{NomadApi, World, images, servers, wait_for};

/// Set in the process that `a_killed_program_leaves_nothing` starts from this same program, to kill it.
const CHILD: &str = "CONSIGN_TEST_CHILD";

#[tokio::test]
async fn a_job_runs_to_its_end() {
    let world = World::new("servers").await;
    let ledger = world.ledger();
    world.nomad.run_script("hello", &format!("echo started >> {}", ledger.display())).await;
    let allocation = world.nomad.allocation("hello", "complete").await;
    assert_eq!(allocation["TaskStates"]["task"]["Failed"], false);
    assert_eq!(world.ledger_lines(), ["started"]);
}

#[tokio::test]
async fn the_shared_vault_takes_its_token() {
    let servers = servers();
    let http = crate::support::http();
    let request = http.get(format!("{}/v1/auth/token/lookup-self", servers.vault_address));
    let answer = request.header("X-Vault-Token", servers.vault_token.expose_secret()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn the_ops_repo_takes_commits() {
    let world = World::new("ops").await;
    let first = world.ops.commit("Add an action", &[("actions/a.toml", Some("id = \"a\"\n"))]);
    world.ops.commit("Add its result", &[("actions/a.result.json", Some("{\"id\": \"a\"}"))]);
    assert_eq!(world.result("a", Duration::from_secs(1)).await["id"], "a");
    world.ops.commit("Delete it", &[("actions/a.toml", None)]);
    assert_eq!(world.ops.paths(), ["actions/a.result.json"]);
    world.ops.force(&first);
    assert_eq!(world.ops.paths(), ["actions/a.toml"]);
    assert!(world.config_toml().contains(&world.gate()));
}

#[tokio::test]
async fn a_restarted_nomad_remembers_and_a_stopped_one_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap().keep();
    let options = NomadOptions {
        folder: folder.clone(),
        remove_folder: true,
        role: Role::Single,
        ..NomadOptions::default()
    };
    let mut nomad = Nomad::start(&options).await.unwrap();
    let api = NomadApi::new(&nomad.address(), "default", None);
    let pid_file = folder.join("task.pid");
    api.run_script("lasting", &format!("echo $$ > {}; exec sleep 3600", pid_file.display())).await;
    let before = api.allocation("lasting", "running").await;
    let task = wait_for("the task's process id", Duration::from_secs(10), async || {
        let text = fs::read_to_string(&pid_file).map_err(|error| error.to_string())?;
        text.trim().parse::<u32>().map_err(|error| error.to_string())
    })
    .await;

    nomad.kill().await.unwrap();
    assert!(is_alive(task), "a task outlives its agent");
    nomad.launch().await.unwrap();
    let after = api.allocation("lasting", "running").await;
    assert_eq!(before["ID"], after["ID"]);
    assert!(is_alive(task));

    nomad.stop().await.unwrap();
    assert!(!is_alive(task), "the task goes with its throwaway agent");
    assert!(!folder.exists());
    assert_eq!(mounts_under(&folder), Vec::<String>::new());
}

#[tokio::test]
async fn a_client_of_its_own_joins_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let start = async |name: &str, role: Role| {
        let options = NomadOptions { folder: folder.path().join(name), role, ..NomadOptions::default() };
        Nomad::start(&options).await.unwrap()
    };
    let server = start("server", Role::Server).await;
    let client = start("client", Role::Client { server: server.rpc_address() }).await;
    let api = NomadApi::new(&server.address(), "default", None);
    api.run_script("hello", "exit 0").await;
    api.allocation("hello", "complete").await;
    client.stop().await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_persistent_vault_is_sealed_unsealed_and_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        VaultOptions { folder: folder.path().to_owned(), persistent: true, ..VaultOptions::default() };
    let mut vault = Vault::start(&options).await.unwrap();
    let http = crate::support::http();
    let (url, token) = (format!("{}/v1/secret/data/one", vault.address()), vault.root_token().clone());
    let get = async || {
        let answer = http.get(&url).header("X-Vault-Token", token.expose_secret()).send().await.unwrap();
        answer.status().as_u16()
    };
    let put = http.put(&url).header("X-Vault-Token", token.expose_secret());
    put.json(&serde_json::json!({"data": {"value": "x"}})).send().await.unwrap().error_for_status().unwrap();
    vault.seal().await.unwrap();
    assert_eq!(get().await, 503);
    vault.unseal().await.unwrap();
    assert_eq!(get().await, 200);
    vault.restart().await.unwrap();
    assert_eq!(get().await, 200);
    vault.stop().await.unwrap();
}

#[tokio::test]
async fn a_docker_engine_that_was_killed_leaves_no_container() {
    let folder = tempfile::Builder::new().prefix("consign-docker-").tempdir().unwrap().keep();
    let options = DockerOptions { folder: folder.clone(), remove_folder: true };
    let docker = Docker::start(&options).await.unwrap();
    for image in images::all() {
        docker.import(image.repository, image.tag, image.archive, &image.changes).await.unwrap();
    }
    let http =
        reqwest::Client::builder().tls_certs_only(Vec::new()).unix_socket(docker.socket()).build().unwrap();
    let body = serde_json::json!({
        "Image": images::BUSYBOX, "Cmd": ["sleep", "3600"], "HostConfig": {"NetworkMode": "none"},
    });
    let answer = http.post("http://docker/containers/create").json(&body).send().await.unwrap();
    let id = answer.json::<serde_json::Value>().await.unwrap()["Id"].as_str().unwrap().to_owned();
    let url = format!("http://docker/containers/{id}");
    http.post(format!("{url}/start")).send().await.unwrap().error_for_status().unwrap();
    let container: serde_json::Value =
        http.get(format!("{url}/json")).send().await.unwrap().json().await.unwrap();
    let process = u32::try_from(container["State"]["Pid"].as_u64().unwrap()).unwrap();
    assert!(is_alive(process), "{container}");

    let engine = rustix::process::Pid::from_raw(docker.pid().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(engine, rustix::process::Signal::KILL).unwrap();
    docker.stop().await.unwrap();
    assert!(!is_alive(process), "the container goes with its throwaway engine");
    assert!(!folder.exists());
    assert_eq!(mounts_under(&folder), Vec::<String>::new());
}

#[tokio::test]
async fn a_killed_program_leaves_nothing() {
    if env::var_os(CHILD).is_some() {
        return be_killed().await;
    }
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "servers::a_killed_program_leaves_nothing", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut told = lines.skip_while(|line| !line.ends_with("CHILD IS READY")).skip(1);
    let pids: Vec<u32> = told.next().unwrap().split(' ').map(|pid| pid.parse().unwrap()).collect();
    let folder = PathBuf::from(told.next().unwrap());
    let world = PathBuf::from(told.next().unwrap());
    assert!(pids.iter().all(|pid| is_alive(*pid)) && folder.exists(), "{pids:?} {folder:?}");

    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("everything to be gone", Duration::from_mins(1), async || {
        let left: Vec<_> = pids.iter().filter(|pid| is_alive(**pid)).collect();
        if left.is_empty() && !folder.exists() && mounts_under(&folder).is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}, {} there: {}", folder.display(), folder.exists()))
        }
    })
    .await;
    fs::remove_dir_all(world).unwrap();
}

/// The life of the program that is killed: it has servers with a running task, and says which.
async fn be_killed() {
    let world = World::new("killed").await;
    let pid_file = world.path("task.pid");
    world.nomad.run_script("lasting", &format!("echo $$ > {}; exec sleep 3600", pid_file.display())).await;
    let task = wait_for("the task's process id", Duration::from_mins(1), async || {
        let text = fs::read_to_string(&pid_file).map_err(|error| error.to_string())?;
        text.trim().parse::<u32>().map_err(|error| error.to_string())
    })
    .await;
    let servers = servers();
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nCHILD IS READY\n{} {} {task}", servers.nomad_pid, servers.vault_pid).unwrap();
    writeln!(out, "{}", servers.nomad_folder.display()).unwrap();
    writeln!(out, "{}", world.path("").display()).unwrap();
    out.flush().unwrap();
    drop(out);
    std::future::pending::<()>().await;
}

/// Whether a process runs; one that has ended and was not yet waited for does not.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z'))
}

fn mounts_under(folder: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    mounts.lines().filter(|line| line.contains(folder.to_str().unwrap())).map(str::to_owned).collect()
}
