//! The base job for training, with the sample formula, on a Nomad that has a host volume and no GPU.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use consign::dev::servers::HostVolume;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{LIMIT, OwnServers, World, ends_with_code, wait_for};

const FORMULA: &str = include_str!("../../actions/formulas/train.toml");
const PHASES: [&str; 8] = [
    "infrastructure",
    "indexing",
    "feedback",
    "validation",
    "data generation",
    "fine-tuning",
    "conversion",
    "deployment",
];
/// Little enough for a small machine without a GPU.
const RESOURCES: &str = "resources = { cpu = 100, memory = \"256MiB\", gpus = 0 }\n";

/// A world whose tasks run under exec, and whose node has the volume for training.
struct Gym {
    world: World,
    volume: PathBuf,
    _servers: OwnServers,
    _folder: TempDir,
}

impl Gym {
    async fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("training");
        fs::create_dir(&volume).unwrap();
        // Under exec tasks run as nobody.
        for path in [folder.path(), &volume] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let offered = HostVolume { path: volume.clone(), read_only: false };
        let servers = OwnServers::start_with(|options| {
            options.host_volumes = [("training".to_owned(), offered)].into();
        })
        .await;
        let world = World::on(servers.servers.clone(), name).await;
        world.bootstrap_with(&world.config_toml().replace("driver = \"raw_exec\"", "driver = \"exec\""));
        world.ops.commit("a formula", &[("formulas/train.toml", Some(FORMULA))]);
        Self { world, volume, _servers: servers, _folder: folder }
    }

    fn json(&self, path: &str) -> Value {
        let text = fs::read_to_string(self.volume.join(path)).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }
}

/// Names and exit codes of a result's steps.
fn steps(result: &Value) -> Vec<(&str, i64)> {
    let steps = result["steps"].as_array().unwrap().iter();
    steps.map(|step| (step["name"].as_str().unwrap(), step["exit_code"].as_i64().unwrap())).collect()
}

/// The last epoch that has a checkpoint.
fn epoch(checkpoints: &Path) -> Result<u32, String> {
    let text = fs::read_to_string(checkpoints.join("checkpoint")).map_err(|error| error.to_string())?;
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("epoch ").and_then(|epoch| epoch.parse().ok()).ok_or_else(|| line.to_owned())
}

#[tokio::test]
async fn training_ends_with_its_model_and_eight_timed_phases() {
    let gym = Gym::new("training").await;
    let _agent = gym.world.agent().await;
    gym.world.commit_action("train", "train", RESOURCES);
    gym.world.commit_action("with-gpu", "train", "");
    let result = gym.world.result("train", LIMIT).await;
    ends_with_code(&result, "succeeded", "success", 0);
    assert_eq!(steps(&result), PHASES.map(|phase| (phase, 0)));
    let seconds: Vec<f64> =
        result["steps"].as_array().unwrap().iter().map(|step| step["seconds"].as_f64().unwrap()).collect();
    let moment = |key: &str| result[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let whole = moment("finished_at").duration_since(moment("submitted_at")).as_secs_f64();
    let sum: f64 = seconds.iter().sum();
    assert!(sum > 0.0 && sum <= whole, "phases of a run of {whole} s: {seconds:?}");

    let kept: Vec<&str> =
        result["artifacts"].as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap()).collect();
    assert_eq!(
        kept,
        ["metrics.json", "model/manifest.json", "model/model.txt", "model/model.txt.sha256"],
        "{result}"
    );
    let metrics = gym.json("train/metrics.json");
    let losses: Vec<f64> = metrics["losses"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    assert!(losses.len() == 8 && losses[7] < 0.5 * losses[0], "{metrics}");
    let manifest = gym.json("train/release/manifest.json");
    assert_eq!((&manifest["action"], &manifest["revision"]), (&json!("train"), &result["revision"]));
    assert_eq!(manifest["sha256"], result["artifacts"][2]["sha256"]);

    let id = result["attempts"][0]["nomad_job_id"].as_str().unwrap();
    let job = gym.world.nomad.get(&format!("/v1/job/{}", id.replace('/', "%2F"))).await.unwrap();
    let task = &job["TaskGroups"][0]["Tasks"][0];
    assert_eq!((&task["Driver"], &task["Resources"]["Devices"]), (&json!("exec"), &Value::Null), "{task}");

    let refused = gym.world.result("with-gpu", LIMIT).await;
    ends_with_code(&refused, "failed", "no_capacity", 125);
    assert!(refused["message"].as_str().unwrap().contains("no node has 1 nvidia/gpu"), "{refused}");
}

#[tokio::test]
async fn a_training_that_was_killed_goes_on_from_its_checkpoints_in_another_allocation() {
    let gym = Gym::new("killed").await;
    let world = &gym.world;
    let _agent = world.agent().await;
    let (_, from_sixth) = FORMULA.split_once("[[steps]]\nname = \"fine-tuning\"").unwrap();
    let (head, _) = FORMULA.split_once("[[steps]]").unwrap();
    let last_three = format!("{head}[[steps]]\nname = \"fine-tuning\"{from_sixth}");
    world.ops.commit("the last steps", &[("formulas/last-three.toml", Some(&last_three))]);
    let args = "[args]\nepochs = \"9999\"\n";
    world.commit_action("train", "train", &format!("{RESOURCES}{args}"));
    let reached = kill_in_the_sixth(&gym).await;
    let killed = world.result("train", LIMIT).await;
    ends_with_code(&killed, "failed", "exit_code", 137);
    assert_eq!(steps(&killed), PHASES.map(|phase| (phase, 0))[..5]);

    let epochs = epoch(&gym.volume.join("train")).unwrap() + 2;
    assert!((reached + 2..9999).contains(&epochs), "{epochs}");
    world.commit_action(
        "again",
        "last-three",
        &format!(
            "{RESOURCES}env = {{ CHECKPOINTS = \"/srv/training/train\" }}\n[args]\nepochs = \"{epochs}\"\n"
        ),
    );
    let again = world.result("again", LIMIT).await;
    ends_with_code(&again, "succeeded", "success", 0);
    let logs = again["logs"].as_str().unwrap();
    assert!(logs.contains(&format!("going on after epoch {}\n", epochs - 2)), "{logs}");
    let metrics = gym.json("train/metrics.json");
    assert_eq!(metrics["losses"].as_array().unwrap().len(), usize::try_from(epochs).unwrap());
    assert_ne!(killed["attempts"][0]["allocation_id"], again["attempts"][0]["allocation_id"]);
}

#[tokio::test]
async fn a_retry_from_the_sixth_phase_repeats_none_before_it() {
    let gym = Gym::new("retrained").await;
    let world = &gym.world;
    let _agent = world.agent().await;
    let checkpoints = gym.volume.join("train");
    world.commit_action("train", "train", &format!("{RESOURCES}[args]\nepochs = \"300\"\n"));
    let reached = kill_in_the_sixth(&gym).await;
    let killed = world.result("train", LIMIT).await;
    ends_with_code(&killed, "failed", "exit_code", 137);
    let corpus = || fs::metadata(checkpoints.join("corpus")).unwrap().modified().unwrap();
    let indexed_at = corpus();

    let token = world.operate(&["token", "create", "ann", "--scope", "read,submit"], b"");
    assert!(token.status.success(), "{}", String::from_utf8_lossy(&token.stderr));
    let token = String::from_utf8(token.stdout).unwrap().lines().last().unwrap().to_owned();
    let mut retry = world.consign(&["retry", "train", "--from-step", "fine-tuning"]);
    let output = retry.env("CONSIGN_TOKEN", token).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result = wait_for("the second result", LIMIT, async || {
        let result = world.result("train", LIMIT).await;
        if result["outcome"] == "succeeded" { Ok(result) } else { Err(result.to_string()) }
    })
    .await;
    assert_eq!(steps(&result), PHASES.map(|phase| (phase, 0)));
    assert_eq!(result["steps"].as_array().unwrap()[..5], killed["steps"].as_array().unwrap()[..]);
    assert_eq!(corpus(), indexed_at, "the second phase did not run again");
    let logs = result["logs"].as_str().unwrap();
    let (_, epoch) = logs.split_once("going on after epoch ").unwrap_or_else(|| panic!("{logs}"));
    let (epoch, _) = epoch.split_once('\n').unwrap();
    assert!(epoch.parse::<u32>().unwrap() >= reached, "{logs}");
    let attempts = result["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{result}");
    assert_ne!(attempts[0]["allocation_id"], attempts[1]["allocation_id"]);
}

/// Ends the task of the action `train` as the kernel does where memory runs out, once it has a second
/// checkpoint; gives the epoch that it had reached.
async fn kill_in_the_sixth(gym: &Gym) -> u32 {
    let reached = wait_for("a second checkpoint", LIMIT, async || {
        epoch(&gym.volume.join("train"))
            .and_then(|epoch| if epoch >= 2 { Ok(epoch) } else { Err(format!("epoch {epoch}")) })
    })
    .await;
    let allocations = gym.world.nomad.get("/v1/allocations").await.unwrap();
    let [allocation] = allocations.as_array().unwrap().as_slice() else { panic!("{allocations}") };
    let path = format!("/v1/client/allocation/{}/signal", allocation["ID"].as_str().unwrap());
    let signal = json!({"Signal": "SIGKILL", "Task": "training"});
    gym.world.nomad.request(Method::PUT, &path, Some(signal)).await.unwrap();
    reached
}

#[tokio::test]
async fn under_raw_exec_the_base_job_for_training_is_refused_before_launch() {
    let world = World::new("rawtraining").await;
    world.bootstrap("");
    let _agent = world.agent().await;
    world.ops.commit("a formula", &[("formulas/train.toml", Some(FORMULA))]);
    world.commit_action("train", "train", "resources = { gpus = 0 }\n");
    world.commit_action("plain", "train", "job = \"runner\"\n[args]\nepochs = \"1\"\n");
    let refused = world.result("train", LIMIT).await;
    ends_with_code(&refused, "failed", "missing_mount", 125);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("host volume training") && message.contains("raw_exec"), "{message}");
    assert_eq!(refused["attempts"], json!([]));
    ends_with_code(&world.result("plain", LIMIT).await, "succeeded", "success", 0);
}
