//! Every shape that can be asked for: compiled, read by Nomad's own parser, and found to say the same.

use consign::{
    action::{Constraint, Driver, Resources},
    dispatch::{
        base_job::{BaseJob, Settings},
        shape::{Mount, Shape},
        variant::{self, Parent},
    },
    duration::Span,
};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::World;

/// How many shapes are tried; parsing one takes Nomad some milliseconds.
const SHAPES: usize = 80;
const MEBIBYTE: u64 = 1024 * 1024;

fn settings() -> Settings {
    Settings {
        driver: Driver::Exec,
        image: Some("registry.example/image:1".to_owned()),
        role: "role".to_owned(),
        audience: "vault.io".to_owned(),
        kv: "secret".to_owned(),
        prefix: "runner".to_owned(),
        bots: "bots".to_owned(),
        lost_after: Span::from_secs(600),
    }
}

fn resources() -> impl Strategy<Value = Resources> {
    let cpu = prop_oneof![
        Just((None, None)),
        (1_u64..10_000_000).prop_map(|cpu| (Some(cpu), None)),
        (1_u64..4096).prop_map(|cores| (None, Some(cores))),
    ];
    let memory = prop_oneof![
        Just((None, None)),
        (10 * MEBIBYTE..1 << 40).prop_map(|least| (Some(least), None)),
        (10 * MEBIBYTE..1 << 40, 0_u64..1 << 40).prop_map(|(least, more)| (Some(least), Some(least + more))),
    ];
    let device = prop_oneof![
        Just((None, None)),
        Just((Some(0), None)),
        (1_u64..64, "[A-Za-z0-9_.-]{1,12}(/[A-Za-z0-9_.-]{1,8}( [A-Z0-9]{1,4})?){0,2}")
            .prop_map(|(gpus, device)| (Some(gpus), Some(device))),
    ];
    (cpu, memory, device).prop_map(|((cpu, cores), (memory, memory_max), (gpus, device))| Resources {
        cpu,
        cores,
        memory,
        memory_max,
        gpus,
        device,
    })
}

fn constraints() -> impl Strategy<Value = Vec<Constraint>> {
    let words =
        prop::sample::select(vec!["=", "!=", "<", "<=", ">", ">=", "set_contains", "set_contains_any"]);
    // Anything that an action file can hold: its reader refuses interpolation and NUL alone.
    let value = "[^\0]{1,24}".prop_filter("no interpolation", |text| !text.contains("${"));
    // Of `node.…` Nomad knows a few alone.
    let name = "\\$\\{((attr|meta)\\.[A-Za-z0-9._/-]{1,16}|node\\.(class|pool|datacenter|unique\\.name))\\}";
    let one = (name, words, value).prop_map(|(attribute, operator, value)| Constraint {
        attribute,
        operator: operator.to_owned(),
        value,
    });
    prop::collection::vec(one, 0..4)
}

fn mounts() -> impl Strategy<Value = Vec<Mount>> {
    let path = "/[a-z0-9._ @+~#'-]{1,12}[a-z](/[A-Za-z0-9]{1,8}){0,3}";
    let one = ("[A-Za-z0-9][A-Za-z0-9._-]{0,12}", path, any::<bool>());
    prop::collection::btree_map("[A-Za-z0-9][A-Za-z0-9._-]{0,12}", one, 0..4).prop_map(|mounts| {
        let mount =
            |(alias, (volume, destination, read_only))| Mount { alias, volume, destination, read_only };
        mounts.into_iter().map(mount).collect()
    })
}

fn shapes() -> impl Strategy<Value = Shape> {
    let driver = prop::option::of(prop::sample::select(vec![Driver::Docker, Driver::RawExec]));
    (driver, resources(), constraints(), mounts())
        .prop_map(|(driver, resources, constraints, mounts)| Shape { driver, resources, constraints, mounts })
}

/// The shape that Nomad's reading of a job says, as far as it differs from the plain job's reading.
fn read_back(job: &Value, plain: &Value, asked: &Shape) -> Shape {
    let task = |job: &Value| job["TaskGroups"][0]["Tasks"][0].clone();
    let (group, plain_group) = (&job["TaskGroups"][0], &plain["TaskGroups"][0]);
    let (own, base) = (task(job), task(plain));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let driver = match text(&own["Driver"]).as_str() {
        "docker" => Some(Driver::Docker),
        "raw_exec" => Some(Driver::RawExec),
        _ => None,
    };
    let changed = |key: &str| {
        let value = own["Resources"][key].as_u64().filter(|value| *value > 0);
        value.filter(|_| own["Resources"][key] != base["Resources"][key])
    };
    let device = list(&own["Resources"]["Devices"]).first().cloned();
    // What equals the base job's own value cannot be told from what was not asked for.
    let kept = |asked: Option<u64>, key: &str| asked.filter(|_| changed(key).is_none()).or(changed(key));
    let bytes = |asked: Option<u64>, key: &str| {
        let mebibytes = kept(asked.map(|bytes| bytes.div_ceil(MEBIBYTE)), key);
        // Nomad counts in MiB: what was asked for is the same where it rounds up to the same.
        asked.filter(|asked| mebibytes == Some(asked.div_ceil(MEBIBYTE))).or(mebibytes)
    };
    let resources = Resources {
        cpu: kept(asked.resources.cpu, "CPU"),
        cores: kept(asked.resources.cores, "Cores"),
        memory: bytes(asked.resources.memory, "MemoryMB"),
        memory_max: bytes(asked.resources.memory_max, "MemoryMaxMB"),
        gpus: device
            .as_ref()
            .map_or(asked.resources.gpus.filter(|gpus| *gpus == 0), |found| found["Count"].as_u64()),
        device: device.as_ref().map(|found| text(&found["Name"])),
    };
    let constraints = list(&group["Constraints"])
        .into_iter()
        .skip(list(&plain_group["Constraints"]).len())
        .map(|found| Constraint {
            attribute: text(&found["LTarget"]),
            operator: text(&found["Operand"]),
            value: text(&found["RTarget"]),
        });
    let mounts = list(&own["VolumeMounts"]).into_iter().map(|found| {
        let alias = text(&found["Volume"]);
        let volume = &group["Volumes"][&alias];
        assert_eq!((&volume["Type"], &volume["ReadOnly"]), (&json!("host"), &found["ReadOnly"]), "{volume}");
        Mount {
            volume: text(&volume["Source"]),
            destination: text(&found["Destination"]),
            read_only: found["ReadOnly"] == true,
            alias,
        }
    });
    Shape { driver, resources, constraints: constraints.collect(), mounts: mounts.collect() }
}

async fn parse(world: &World, parent: &Parent) -> Value {
    let body = json!({ "JobHCL": parent.rendered.hcl, "Canonicalize": false });
    let parsed = world.nomad.request(Method::PUT, "/v1/jobs/parse", Some(body)).await;
    parsed.unwrap_or_else(|error| panic!("{error}\n{}", parent.rendered.hcl))
}

#[tokio::test]
async fn nomad_reads_every_variant_as_it_was_asked_for() {
    let world = World::new("shapes").await;
    let jobs = BaseJob::shipped();
    let runner = jobs.iter().find(|job| job.name() == "runner").unwrap();
    let plain = parse(&world, &variant::compile(runner, &settings(), &Shape::default()).unwrap()).await;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner_of_cases = TestRunner::new_with_rng(Config::default(), rng);
    for _ in 0..SHAPES {
        let shape = shapes().new_tree(&mut runner_of_cases).unwrap().current();
        let parent = variant::compile(runner, &settings(), &shape).unwrap();
        let job = parse(&world, &parent).await;
        assert_eq!(read_back(&job, &plain, &shape), shape, "{}", parent.rendered.hcl);
        assert_eq!(job["ID"], json!(parent.id));
        let body = Some(json!({ "Job": job }));
        let answer = world.nomad.request(Method::PUT, "/v1/validate/job", body).await.unwrap();
        assert_eq!(answer["ValidationErrors"], Value::Null, "{}\n{}", answer, parent.rendered.hcl);
    }
}

#[tokio::test]
async fn nomad_takes_every_shipped_job() {
    let world = World::new("shipped").await;
    for driver in [Driver::Docker, Driver::Exec, Driver::RawExec] {
        for job in BaseJob::shipped() {
            let settings = Settings { driver, ..settings() };
            let parent = variant::compile(&job, &settings, &Shape::default()).unwrap();
            let body = Some(json!({ "Job": parse(&world, &parent).await }));
            let answer = world.nomad.request(Method::PUT, "/v1/validate/job", body).await.unwrap();
            assert_eq!(answer["ValidationErrors"], Value::Null, "{} {driver:?}: {answer}", job.name());
        }
    }
}
