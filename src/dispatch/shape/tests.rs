use bytesize::ByteSize;

use super::*;
use crate::dispatch::limits::Rule;

const HEAD: &str = "id = \"a\"\nformula = \"train-big\"\ncontext = \"c\"\nsecrets = [\"KEY\"]\n";

fn allowed() -> Allowed {
    let mount = |text: &str| toml::from_str::<mount::Settings>(text).unwrap();
    let alias = |text: &str| Alias::try_from(text.to_owned()).unwrap();
    Allowed {
        limits: Limits {
            cpu: 8000,
            cores: 8,
            memory: ByteSize::gib(16),
            gpus: 2,
            devices: vec!["nvidia/gpu".to_owned(), "nvidia/gpu/*".to_owned()],
            drivers: vec![],
            constraints: true,
            rule: vec![],
        },
        mounts: BTreeMap::from([
            (alias("ssh"), mount("volume = \"keys\"\ndestination = \"/root/.ssh\"\n")),
            (
                alias("sops"),
                mount(
                    "volume = \"sops\"\ndestination = \"/age\"\nenv = { SOPS_AGE_KEY_FILE = \"/age/keys.txt\" }\n",
                ),
            ),
            (alias("again"), mount("volume = \"other\"\ndestination = \"/age\"\n")),
            (alias("key"), mount("volume = \"other\"\ndestination = \"/key\"\nenv = { KEY = \"x\" }\n")),
        ]),
        driver: Driver::Exec,
    }
}

fn decided_with(action: &str, formula: &str, allowed: &Allowed) -> Result<Decided, Refused> {
    let action = crate::action::file::read("actions/a.toml", format!("{HEAD}{action}").as_bytes()).unwrap();
    let formula = format!("description = \"d\"\n{formula}\n[[steps]]\nname = \"s\"\nrun = \"true\"\n");
    let formula = crate::formula::file::read("formulas/train-big.toml", formula.as_bytes()).unwrap();
    decide(&action, &formula, allowed)
}

fn decided(action: &str, formula: &str) -> Result<Decided, Refused> {
    decided_with(action, formula, &allowed())
}

fn resources(action: &str, formula: &str) -> Resources {
    decided(action, formula).unwrap().shape.resources
}

#[test]
fn who_asks_for_nothing_gets_the_plain_base_job() {
    let decided = decided("driver = \"exec\"\n", "").unwrap();
    assert!(decided.shape.is_plain(), "{decided:?}");
}

#[test]
fn an_older_record_is_a_plain_shape() {
    assert_eq!(serde_json::from_str::<Shape>("{}").unwrap(), Shape::default());
    let shape = decided("mounts = [\"ssh\"]\nresources = { memory = \"1GiB\" }\n", "").unwrap().shape;
    assert_eq!(serde_json::from_str::<Shape>(&shape.canonical()).unwrap(), shape);
}

#[test]
fn the_action_counts_before_the_formula_key_by_key() {
    let formula = "resources = { cpu = 500, memory = \"1GiB\", gpus = 2, device = \"nvidia/gpu/a100\" }";
    let both = resources("resources = { cores = 2, gpus = 1 }\n", formula);
    assert_eq!((both.cpu, both.cores, both.memory), (None, Some(2), Some(1 << 30)));
    assert_eq!((both.gpus, both.device.as_deref()), (Some(1), Some("nvidia/gpu/a100")));
    let none = resources("resources = { gpus = 0 }\n", formula);
    assert_eq!((none.gpus, none.device, none.cpu), (Some(0), None, Some(500)));
    let named = resources("resources = { device = \"nvidia/gpu\" }\n", "");
    assert_eq!((named.gpus, named.device.as_deref()), (Some(1), Some("nvidia/gpu")));
    let counted = resources("resources = { gpus = 2 }\n", "");
    assert_eq!((counted.gpus, counted.device.as_deref()), (Some(2), Some(DEFAULT_DEVICE)));
}

#[test]
fn the_order_of_writing_makes_no_other_shape() {
    let one = "[[constraints]]\nattribute = \"${node.class}\"\nvalue = \"a\"\n";
    let two = "[[constraints]]\nattribute = \"${meta.rack}\"\nvalue = \"b\"\n";
    let shape =
        |mounts: &str, tables: &str| decided(&format!("mounts = {mounts}\n{tables}"), "").unwrap().shape;
    let first = shape("[\"ssh\", \"sops\"]", &format!("{one}{two}"));
    assert_eq!(first, shape("[\"sops\", \"ssh\"]", &format!("{two}{one}{two}")));
    assert_eq!((first.constraints.len(), first.mounts.len()), (2, 2));
}

#[test]
fn what_is_too_much_is_told_with_the_limit_and_its_rule() {
    let mut allowed = allowed();
    allowed.limits.rule = vec![
        Rule {
            formula: "train-*".to_owned(),
            gpus: Some(4),
            memory: Some(ByteSize::gib(32)),
            ..Rule::default()
        },
        Rule { formula: "*-big".to_owned(), gpus: Some(3), ..Rule::default() },
        Rule { formula: "other".to_owned(), gpus: Some(64), constraints: Some(false), ..Rule::default() },
    ];
    for (asked, words) in [
        ("resources = { cpu = 8001 }", vec!["cpu: 8001 MHz", "may have 8000", "[shapes]"]),
        ("resources = { cores = 9 }", vec!["cores: 9 cores", "may have 8"]),
        ("resources = { memory = \"33GiB\" }", vec!["memory: 33.0 GiB", "may have 32.0 GiB", "\"train-*\""]),
        ("resources = { memory_max = \"33GiB\" }", vec!["memory_max"]),
        (
            "resources = { gpus = 4 }",
            vec!["gpus: 4 devices", "may have 3", "[[shapes.rule]] for formula \"*-big\""],
        ),
        ("resources = { device = \"amd/gpu\" }", vec!["device: amd/gpu", "nvidia/gpu, nvidia/gpu/*"]),
        ("driver = \"raw_exec\"", vec!["driver: raw_exec", "may have exec"]),
    ] {
        let Refused { cause, key, message } = decided_with(&format!("{asked}\n"), "", &allowed).unwrap_err();
        assert!(cause == Cause::Invalid && asked.starts_with(key), "{asked}: {key}");
        assert!(words.iter().all(|word| message.contains(word)), "{asked}: {message}");
        // What the formula asks for counts like what the action asks for.
        assert_eq!(decided_with("", asked, &allowed).unwrap_err().message, message);
    }
    assert!(decided_with("resources = { gpus = 3, memory = \"32GiB\" }\n", "", &allowed).is_ok());
    allowed.limits.rule[1].constraints = Some(false);
    let constrained = "[[constraints]]\nattribute = \"${node.class}\"\nvalue = \"a\"\n";
    assert!(decided_with(constrained, "", &allowed).unwrap_err().message.contains("constraints"));
    allowed.limits.rule[1].drivers = Some(vec![Driver::RawExec]);
    let raw = decided_with("driver = \"raw_exec\"\n", "", &allowed).unwrap();
    assert_eq!(raw.shape.driver, Some(Driver::RawExec));
}

#[test]
fn mounts_bring_their_variables() {
    let decided = decided("mounts = [\"sops\"]\nenv = { OTHER = \"1\" }\n", "").unwrap();
    assert_eq!(decided.env["SOPS_AGE_KEY_FILE"], "/age/keys.txt");
    assert_eq!((decided.shape.mounts[0].volume.as_str(), decided.shape.mounts[0].read_only), ("sops", true));
    let own = self::decided("mounts = [\"sops\"]\nenv = { SOPS_AGE_KEY_FILE = \"/mine\" }\n", "").unwrap();
    assert!(own.env.is_empty());
}

#[test]
fn a_mount_that_cannot_be_is_refused_and_says_why() {
    for (asked, cause, words) in [
        ("mounts = [\"sshh\"]", Cause::MissingMount, "did you mean `ssh`?"),
        ("mounts = [\"database\"]", Cause::MissingMount, "the mounts are again, key, sops, ssh"),
        ("mounts = [\"sops\", \"again\"]", Cause::MissingMount, "two mounts would be at /age"),
        ("mounts = [\"key\"]", Cause::Invalid, "name of a secret"),
    ] {
        let refused = decided(&format!("{asked}\n"), "").unwrap_err();
        assert_eq!(refused.cause, cause, "{refused:?}");
        assert!(refused.message.contains(words), "{refused:?}");
    }
    let raw = Allowed { driver: Driver::RawExec, ..allowed() };
    let refused = decided_with("mounts = [\"ssh\"]\n", "", &raw).unwrap_err();
    assert_eq!(refused.cause, Cause::MissingMount);
    assert!(refused.message.contains("raw_exec cannot mount ssh"), "{refused:?}");
}

#[test]
fn memory_and_its_limit_must_fit_each_other() {
    let refused =
        decided("resources = { memory = \"4GiB\" }\n", "resources = { memory_max = \"1GiB\" }").unwrap_err();
    assert!(refused.message.contains("give both"), "{refused:?}");
}
