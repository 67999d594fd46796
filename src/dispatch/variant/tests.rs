use super::*;
use crate::{
    action::Driver,
    dispatch::needs::{Device, DeviceGroup, Offer, Volume},
    duration::Span,
    outcome::Cause,
};

fn settings() -> Settings {
    Settings {
        driver: Driver::Exec,
        image: None,
        role: "a-role".to_owned(),
        audience: "vault".to_owned(),
        kv: "kv".to_owned(),
        prefix: "runner".to_owned(),
        bots: "bots".to_owned(),
        lost_after: Span::from_secs(600),
    }
}

fn runner() -> BaseJob {
    BaseJob::shipped().into_iter().find(|job| job.name() == "runner").unwrap()
}

fn compiled(shape: &Shape) -> Parent {
    compile(&runner(), &settings(), shape).unwrap()
}

fn with(resources: Resources) -> Shape {
    Shape { resources, ..Shape::default() }
}

fn mount() -> Mount {
    Mount {
        alias: "ssh".to_owned(),
        volume: "deploy-keys".to_owned(),
        destination: "/root/.ssh".to_owned(),
        read_only: true,
    }
}

#[test]
fn the_plain_shape_is_the_base_job() {
    let plain = compiled(&Shape::default());
    assert_eq!((plain.id.as_str(), plain.is_variant()), ("runner", false));
    assert_eq!(plain.rendered, runner().render(&settings()).unwrap());
    assert!(plain.needs.is_empty());
}

#[test]
fn an_id_is_the_hash_of_all_that_makes_the_job() {
    let shape = with(Resources { memory: Some(1 << 30), ..Resources::default() });
    let one = compiled(&shape);
    assert_eq!(one, compiled(&shape));
    assert_eq!(base_of(&one.id), Some("runner"));
    assert!(one.rendered.marker.starts_with(one.id.strip_prefix("runner-").unwrap()));
    let other = |settings: Settings, shape: &Shape| compile(&runner(), &settings, shape).unwrap().id;
    let ids = [
        one.id.clone(),
        other(settings(), &with(Resources { memory: Some(2 << 30), ..Resources::default() })),
        other(settings(), &with(Resources { gpus: Some(0), ..Resources::default() })),
        other(settings(), &Shape { driver: Some(Driver::Docker), ..Shape::default() }),
        other(Settings { kv: "other".to_owned(), ..settings() }, &shape),
        other(Settings { driver: Driver::Docker, ..settings() }, &shape),
        other(settings(), &Shape { mounts: vec![mount()], ..shape.clone() }),
    ];
    let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "{ids:?}");
}

#[test]
fn ids_of_variants_are_known_by_their_form() {
    assert_eq!(base_of("runner-0123456789ab"), Some("runner"));
    assert_eq!(base_of("my-job-0123456789ab"), Some("my-job"));
    for id in ["runner", "runner-0123456789a", "runner-0123456789AB", "-0123456789ab", "runner-0123456789abc"]
    {
        assert_eq!(base_of(id), None, "{id}");
    }
}

#[test]
fn resources_take_the_place_of_the_base_jobs() {
    let hcl = compiled(&with(Resources {
        cores: Some(2),
        memory: Some((1 << 30) + 1),
        memory_max: Some(3 << 30),
        gpus: Some(2),
        device: Some("nvidia/gpu/A100 40".to_owned()),
        ..Resources::default()
    }))
    .rendered
    .hcl;
    let block = hcl.split("      resources {").nth(1).unwrap().split("      logs {").next().unwrap();
    for line in
        ["cores = 2", "memory = 1025", "memory_max = 3072", "device \"nvidia/gpu/A100 40\" {", "count = 2"]
    {
        assert!(block.contains(line), "{line}: {block}");
    }
    assert!(!block.contains("cpu") && !block.contains("256"), "{block}");
    assert!(hcl.contains("# An attempt is never repeated by Nomad"));
}

#[test]
fn a_device_of_the_base_job_is_replaced_or_taken_away() {
    let text = include_str!("../../../jobs/runner.nomad.hcl").replace(
        "        memory = 256\n",
        "        memory = 256\n        device \"nvidia/gpu\" {\n          count = 4\n        }\n",
    );
    let job = BaseJob::read("runner", &text).unwrap();
    let needs = |gpus: Option<u64>, device: Option<&str>| {
        let resources = Resources { gpus, device: device.map(str::to_owned), ..Resources::default() };
        compile(&job, &settings(), &with(resources)).unwrap().needs.devices
    };
    let device = |name: &str, count| vec![Device { name: name.to_owned(), count }];
    assert_eq!(needs(None, None), device("nvidia/gpu", 4));
    assert_eq!(needs(Some(1), Some("amd/gpu")), device("amd/gpu", 1));
    assert_eq!(needs(Some(0), None), vec![]);
}

#[test]
fn mounts_and_constraints_stand_in_group_and_task() {
    let constraint = Constraint {
        attribute: "${attr.cpu.arch}".to_owned(),
        operator: "!=".to_owned(),
        value: "a\"b\\".to_owned(),
    };
    let parent =
        compiled(&Shape { constraints: vec![constraint], mounts: vec![mount()], ..Shape::default() });
    assert_eq!(parent.needs.volumes, [Volume { source: "deploy-keys".to_owned(), read_only: true }]);
    let hcl = &parent.rendered.hcl;
    assert!(hcl.contains("volume \"ssh\" {") && hcl.contains("destination = \"/root/.ssh\""), "{hcl}");
    assert!(
        hcl.contains("attribute = \"$${attr.cpu.arch}\"") && hcl.contains("value     = \"a\\\"b\\\\\""),
        "{hcl}"
    );
    assert!(hcl.contains("consign_variant_of = \"runner\""), "{hcl}");
    assert!(BaseJob::read(&parent.id, hcl).is_ok());
}

#[test]
fn what_cannot_be_compiled_is_an_error_that_names_the_base_job() {
    let low = with(Resources { memory_max: Some(128 << 20), ..Resources::default() });
    assert!(compile(&runner(), &settings(), &low).unwrap_err().to_string().contains("256 MiB"));
    let text = include_str!("../../../jobs/runner.nomad.hcl").replace(
        "    ephemeral_disk {",
        "    volume \"ssh\" {\n      type = \"host\"\n      source = \"x\"\n    }\n\n    ephemeral_disk {",
    );
    let job = BaseJob::read("runner", &text).unwrap();
    let twice = compile(&job, &settings(), &Shape { mounts: vec![mount()], ..Shape::default() });
    assert!(twice.unwrap_err().to_string().contains("volume ssh of its own"));
}

#[test]
fn what_no_node_has_is_named_with_what_they_have() {
    let shape = Shape {
        mounts: vec![Mount { read_only: false, ..mount() }],
        ..with(Resources { gpus: Some(2), device: Some("nvidia/gpu".to_owned()), ..Resources::default() })
    };
    let needs = compiled(&shape).needs;
    let offer = |volume: &str, read_only, device: &str, instances| Offer {
        node: "n".to_owned(),
        volumes: [(volume.to_owned(), read_only)].into(),
        devices: vec![DeviceGroup { name: device.to_owned(), instances }],
    };
    assert_eq!(needs.unmet(&[]), None);
    for (nodes, cause, words) in [
        (vec![offer("other", false, "nvidia/gpu/a", 2)], Cause::MissingMount, "the nodes have other"),
        (vec![offer("deploy-keys", true, "nvidia/gpu/a", 2)], Cause::MissingMount, "for writing"),
        (
            vec![offer("deploy-keys", false, "nvidia/gpu/a", 1)],
            Cause::NoCapacity,
            "the nodes have 1 nvidia/gpu/a",
        ),
        (vec![offer("deploy-keys", false, "amd/gpu/a", 8)], Cause::NoCapacity, "no node has 2 nvidia/gpu"),
    ] {
        let (found, message) = needs.unmet(&nodes).unwrap();
        assert!(found == cause && message.contains(words), "{found:?}: {message}");
    }
    assert_eq!(
        needs.unmet(&[offer("deploy-keys", false, "x/y/z", 0), offer("o", false, "nvidia/gpu/a", 2)]),
        None
    );
}

#[test]
fn devices_are_named_in_three_ways() {
    let needs = |name: &str| {
        let resources = Resources { gpus: Some(1), device: Some(name.to_owned()), ..Resources::default() };
        compiled(&with(resources)).needs
    };
    let nodes = [Offer {
        devices: vec![DeviceGroup { name: "nvidia/gpu/1080ti".to_owned(), instances: 1 }],
        ..Offer::default()
    }];
    for (name, met) in [
        ("gpu", true),
        ("nvidia/gpu", true),
        ("nvidia/gpu/1080ti", true),
        ("nvidia", false),
        ("1080ti", false),
        ("amd/gpu", false),
        ("nvidia/gpu/1080", false),
    ] {
        assert_eq!(needs(name).unmet(&nodes).is_none(), met, "{name}");
    }
}
