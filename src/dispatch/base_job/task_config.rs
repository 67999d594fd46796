//! The config block of the task that runs the wrapper, for each driver: what a task may do there is no more
//! than it needs, unless its base job says otherwise.

use hcl_edit::structure::{Body, Structure};

use super::{WRAPPER, set};

/// What a task has under docker where its base job does not name the attribute itself.
const DOCKER: &[(&str, &str)] = &[
    ("entrypoint", "        entrypoint      = [\"/bin/sh\"]\n"),
    ("readonly_rootfs", "        readonly_rootfs = true\n"),
    ("cap_drop", "        cap_drop        = [\"all\"]\n"),
    ("security_opt", "        security_opt    = [\"no-new-privileges\"]\n"),
    // More than a build needs, and few enough that a loop of forks leaves the node working.
    ("pids_limit", "        pids_limit      = 512\n"),
];
/// Under a read-only root: the allocation's own folder, which takes no memory as a tmpfs would.
const TEMPORARY: &str = "        mount {\n          type   = \"bind\"\n          source = \"tmp\"\n          \
                         target = \"/tmp\"\n        }\n";
/// Nomad's default of 2 MB for what Docker keeps to pass on is soon over: what is printed in the meantime is lost, which
/// concerns images whose user is not root. It is deleted with the container.
const LOGGING: &str = "        logging {\n          type = \"json-file\"\n\n          config {\n            \
                       max-file = \"2\"\n            max-size = \"250m\"\n          }\n        }\n";
/// Nomad links the node's own programs into the chroot of exec, and its default capabilities would let a
/// task change them.
const CAP_DROP: &str = "        cap_drop = [\"all\"]\n";

/// For docker; `image` wins over the base job's own. False where there is neither.
pub(super) fn docker(config: &mut Body, image: Option<&str>) -> bool {
    let is_docker = config.has_attribute("image");
    if !is_docker {
        // Written for another driver, whose program `command` names.
        *config = Body::new();
        append(config, &format!("\n        command         = \"${{NOMAD_TASK_DIR}}/{WRAPPER}\"\n"));
        append(config, "        image           = \"\"\n");
    }
    if let Some(image) = image {
        set(config, "image", image);
    }
    for (key, text) in DOCKER {
        if !config.has_attribute(key) {
            append(config, text);
        }
    }
    if !config.to_string().contains("\"/tmp\"") {
        append(config, TEMPORARY);
    }
    if !config.has_blocks("logging") {
        append(config, LOGGING);
    }
    is_docker || image.is_some()
}

/// For exec. The capabilities that the base job names hold here as well.
pub(super) fn exec(config: &mut Body) {
    let drops = config.has_attribute("cap_drop");
    let own: Vec<Structure> = ["cap_drop", "cap_add"]
        .iter()
        .filter_map(|key| config.get_attribute(key).cloned().map(Structure::from))
        .collect();
    raw_exec(config);
    if !drops {
        append(config, CAP_DROP);
    }
    for structure in own {
        config.push(structure);
    }
}

/// For `raw_exec`, which isolates nothing.
pub(super) fn raw_exec(config: &mut Body) {
    *config = Body::new();
    append(config, "\n        command  = \"/bin/sh\"\n");
    append(config, &format!("        args     = [\"${{NOMAD_TASK_DIR}}/{WRAPPER}\"]\n"));
}

fn append(config: &mut Body, text: &str) {
    // The texts above are HCL.
    let parsed: Body = text.parse().unwrap_or_default();
    for structure in parsed {
        config.push(structure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Body {
        text.parse().unwrap()
    }

    #[test]
    fn an_open_docker_config_is_closed() {
        let mut config = body("        image = \"a\"\n        command = \"b\"\n");
        assert!(docker(&mut config, None));
        let text = config.to_string();
        for part in [
            "\"a\"",
            "\"b\"",
            "readonly_rootfs = true",
            "[\"all\"]",
            "no-new-privileges",
            "512",
            "\"/tmp\"",
            "\"250m\"",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(docker(&mut config, Some("c")));
        assert_eq!(config.to_string(), text.replace("\"a\"", "\"c\""));
    }

    #[test]
    fn what_the_base_job_says_holds() {
        let text = "image = \"a\"\nentrypoint = [\"/bin/busybox\", \"sh\"]\nreadonly_rootfs = false\n\
                    cap_drop = [\"net_raw\"]\nsecurity_opt = []\npids_limit = 9\ntmpfs = [\"/tmp\"]\n\
                    logging {\n  type = \"local\"\n}\n";
        let mut config = body(text);
        assert!(docker(&mut config, None));
        assert_eq!(config.to_string(), text);
    }

    #[test]
    fn a_config_of_another_driver_becomes_one_of_docker() {
        let mut config = body("command = \"/bin/sh\"\nargs = [\"${NOMAD_TASK_DIR}/consign/wrapper\"]\n");
        assert!(docker(&mut config, Some("a")));
        let text = config.to_string();
        assert!(!text.contains("args") && text.contains("= \"a\""), "{text}");
        assert!(text.contains("command         = \"${NOMAD_TASK_DIR}/consign/wrapper\""), "{text}");
        assert!(!docker(&mut body("command = \"/bin/sh\"\n"), None));
    }

    #[test]
    fn under_exec_there_are_the_capabilities_that_the_base_job_names() {
        let exec = |text: &str| {
            let mut config = body(text);
            super::exec(&mut config);
            config.to_string()
        };
        assert!(exec("image = \"a\"\n").contains("cap_drop = [\"all\"]"));
        assert!(!exec("image = \"a\"\n").contains("image"));
        assert!(exec("cap_drop = [\"chown\"]\n").contains("[\"chown\"]"));
        let added = exec("cap_add = [\"chown\"]\n");
        assert!(added.contains("cap_drop = [\"all\"]") && added.contains("cap_add = [\"chown\"]"), "{added}");
    }
}
