use super::*;
use crate::dispatch::report::{
    REFUSED_EXIT_CODE, RESTARTED_EXIT_CODE, TIMEOUT_EXIT_CODE, UNSTARTABLE_EXIT_CODE,
};

const RUNNER: &str = SHIPPED[0].1;

fn settings(driver: Driver) -> Settings {
    Settings {
        driver,
        image: Some("registry/image:1".to_owned()),
        role: "a-role".to_owned(),
        audience: "vault".to_owned(),
        kv: "kv".to_owned(),
        prefix: "pre${fix}".to_owned(),
        bots: "helpers".to_owned(),
        lost_after: Span::from_secs(5400),
    }
}

fn messages(text: &str) -> Vec<String> {
    BaseJob::read("runner", text)
        .err()
        .unwrap_or_default()
        .into_iter()
        .map(|diagnostic| diagnostic.message)
        .collect()
}

#[test]
fn the_shipped_jobs_pass_their_own_check() {
    for job in BaseJob::shipped() {
        assert_eq!(BaseJob::read(&job.name, &job.text).as_ref(), Ok(&job));
    }
}

#[test]
fn each_lack_is_named_alone() {
    for (from, to, message) in [
        ("type        = \"batch\"", "", "batch job"),
        ("\"optional\"", "\"forbidden\"", "as payload"),
        ("\"args\", ", "", "meta_optional lacks \"args\""),
        ("restart {\n      attempts = 0", "restart {\n      attempts = 1", "failed task again"),
        ("replace    = false", "replace = true", "out of reach"),
        ("role         = var.role", "", "log in to Vault"),
        ("once        = true", "once = false", "reads again"),
        ("/data/${var.gate}", "/data/other", "launch gate"),
        ("file(\"jobs/wrapper.sh\")", "\"exec sh\"", "started-marker"),
        ("job \"runner\"", "job \"other\"", "must be called"),
    ] {
        let text = RUNNER.replace(from, to);
        assert_ne!(text, RUNNER, "{from}");
        let found = messages(&text);
        assert!(found.len() == 1 && found[0].contains(message), "{message}: {found:?}");
    }
}

#[test]
fn a_lack_has_a_place() {
    let text = RUNNER.replace("replace    = false", "");
    let found = BaseJob::read("runner", &text).unwrap_err();
    assert_eq!(&text[found[0].span.clone()], "group");
    assert!(BaseJob::read("runner", "job {").is_err());
}

/// The first block `path` leads to.
fn inner(body: &Body, path: &[&str]) -> Body {
    path.iter().fold(body.clone(), |body, ident| blocks(&body, ident).next().unwrap().body.clone())
}

/// What the templates of the one task hold.
fn templates(hcl: &str) -> Vec<Expression> {
    let task = inner(&hcl::from_str(hcl).unwrap(), &["job", "group", "task"]);
    blocks(&task, "template").filter_map(|block| attribute(block.body(), "data")).cloned().collect()
}

#[test]
fn what_the_promises_rest_on_is_the_same_in_every_shipped_job() {
    let runner: Body = hcl::from_str(RUNNER).unwrap();
    for job in BaseJob::shipped() {
        let other: Body = hcl::from_str(&job.text).unwrap();
        let of = |name: &str| {
            let same = |block: &&Block| block.labels().first().is_some_and(|label| label.as_str() == name);
            [&runner, &other].map(|body| blocks(body, "variable").find(same).cloned())
        };
        for name in ["role", "audience", "kv", "prefix", "gate", "lost_after"] {
            let [expected, found] = of(name);
            assert!(found.is_some() && expected == found, "{}: variable {name}", job.name());
        }
        for block in ["restart", "reschedule", "disconnect"] {
            let path = ["job", "group", block];
            assert_eq!(inner(&other, &path), inner(&runner, &path), "{}: {block}", job.name());
        }
        for block in ["identity", "vault", "dispatch_payload"] {
            let path = ["job", "group", "task", block];
            assert_eq!(inner(&other, &path), inner(&runner, &path), "{}: {block}", job.name());
        }
        let task = |body: &Body| inner(body, &["job", "group", "task"]);
        let (other, runner) = (task(&other), task(&runner));
        // How many processes a task may have is each base job's own matter.
        let closed = |task: &Body| -> Vec<hcl::Structure> {
            let own = |structure: &hcl::Structure| {
                structure.as_attribute().is_some_and(|attribute| attribute.key() == "pids_limit")
            };
            inner(task, &["config"]).into_iter().filter(|structure| !own(structure)).collect()
        };
        let found = closed(&other);
        assert!(
            closed(&runner).iter().all(|structure| found.contains(structure)),
            "{}: {found:?}",
            job.name()
        );
        for template in blocks(&runner, "template") {
            let found = blocks(&other, "template").any(|other| other == template);
            let place = attribute(template.body(), "destination");
            assert!(found, "{}: the template {place:?}", job.name());
        }
    }
}

#[test]
fn rendering_changes_what_is_configured_alone() {
    for job in BaseJob::shipped() {
        changes_what_is_configured_alone(&job);
    }
}

fn changes_what_is_configured_alone(job: &BaseJob) {
    for driver in [Driver::Docker, Driver::Exec, Driver::RawExec] {
        let rendered = job.render(&settings(driver)).unwrap();
        assert_eq!(job.render(&settings(driver)).unwrap(), rendered);
        let hcl = &rendered.hcl;
        assert!(hcl.contains(&format!("driver       = \"{}\"", driver.name())), "{hcl}");
        assert!(hcl.contains(&format!("{MARKER} = \"{}\"", rendered.marker)), "{hcl}");
        assert!(hcl.contains("default     = \"pre$${fix}\""), "{hcl}");
        assert!(hcl.contains("default     = \"1h30m\""), "{hcl}");
        assert_eq!(hcl.contains("registry/image:1"), driver == Driver::Docker);
        assert!(
            hcl.contains("args     = [\"${NOMAD_TASK_DIR}/consign/wrapper\"]") != (driver == Driver::Docker)
        );
        for (name, text) in FILES {
            assert!(templates(hcl).contains(&Expression::from(text)), "{name}");
        }
        assert_eq!(hcl.contains("[\"all\"]"), driver != Driver::RawExec, "it drops its capabilities: {hcl}");
        assert!(hcl.contains("# An attempt is never repeated by Nomad"));
        assert!(BaseJob::read(job.name(), hcl).is_ok());
    }
}

#[test]
fn the_wrapper_ends_with_the_documented_codes() {
    assert!(WRAPPER_TEXT.contains(&format!("exit {RESTARTED_EXIT_CODE}\n")));
    assert!(WRAPPER_TEXT.contains(&format!("exit {UNSTARTABLE_EXIT_CODE}\n")));
    assert!(WRAPPER_TEXT.contains(&format!("consign_code={TIMEOUT_EXIT_CODE}\n")));
    assert!(WRAPPER_TEXT.contains(&format!("unmasked {UNSTARTABLE_EXIT_CODE}\n")));
    assert!(WRAPPER_TEXT.contains(&format!("refused $consign_formulas\" {REFUSED_EXIT_CODE}\n")));
}

#[test]
fn what_a_base_job_declares_is_read() {
    let declared: Vec<Declared> = BaseJob::shipped().iter().map(BaseJob::declared).cloned().collect();
    assert_eq!(declared[0], Declared::default());
    let meta = ["bot", "issue_number", "project_toml"].map(str::to_owned);
    assert_eq!(declared[1].meta, meta.into());
    let text = RUNNER.replace("meta_optional =", "meta_required = [\"site\"]\nmeta_optional =");
    let base_job = BaseJob::read("runner", &text).unwrap();
    let declared = base_job.declared().clone();
    assert_eq!((declared.meta, declared.required), (["site".to_owned()].into(), ["site".to_owned()].into()));
}

#[test]
fn a_bot_is_named_by_the_argument_or_the_formula() {
    let [runner, sidecar] = [0, 1].map(|index| BaseJob::shipped()[index].declared().clone());
    let bot = |declared: &Declared, formula: &str, given: Option<&str>| {
        let args = given.map(|given| ("bot".to_owned(), given.to_owned())).into_iter().collect();
        let bot = declared.bot(&formula.parse().unwrap(), &args);
        bot.map(|bot| bot.map(|bot| bot.to_string())).map_err(|error| error.0.text)
    };
    assert_eq!(bot(&sidecar, "triage", None), Ok(Some("triage".to_owned())));
    assert_eq!(bot(&sidecar, "triage", Some("night-shift")), Ok(Some("night-shift".to_owned())));
    assert_eq!(bot(&sidecar, "triage", Some("")), Ok(None));
    assert_eq!(bot(&sidecar, "Triage.v2", None), Err("Triage.v2".to_owned()));
    assert_eq!(bot(&sidecar, "triage", Some("../x")), Err("../x".to_owned()));
    assert_eq!(bot(&runner, "triage", Some("../x")), Ok(None));
}

#[test]
fn under_docker_a_base_job_of_another_driver_is_run_by_the_image() {
    let (from, to) = (RUNNER.find("      config {").unwrap(), RUNNER.find("      resources {").unwrap());
    let config = "      config {\n        command = \"/bin/sh\"\n        args    = [\"${NOMAD_TASK_DIR}/consign/wrapper\"]\n      }\n";
    let text = format!("{}{config}{}", &RUNNER[..from], &RUNNER[to..]);
    let hcl = BaseJob::read("runner", &text).unwrap().render(&settings(Driver::Docker)).unwrap().hcl;
    for part in ["= \"registry/image:1\"", "readonly_rootfs = true"] {
        assert!(hcl.contains(part), "{part}: {hcl}");
    }
    let none = Settings { image: None, ..settings(Driver::Docker) };
    let error = BaseJob::read("runner", &text).unwrap().render(&none).unwrap_err().to_string();
    assert!(error.contains("[nomad] image"), "{error}");
}
