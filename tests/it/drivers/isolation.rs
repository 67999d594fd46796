//! What a task sees of its own limits: the formula itself looks, and tries what it may not do.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{EXEC, LIMIT, commit, docker, world};
use crate::support::{ends_with_code, images};

/// Prints `name value` lines: what the kernel says of the process, its limits, and what it could write.
const LOOK: &str = r#"
while read -r key value; do
  case $key in CapInh: | CapPrm: | CapEff: | CapBnd: | CapAmb: | NoNewPrivs: | Seccomp:) echo "${key%:} $value" ;; esac
done </proc/self/status

# Version 2 has the limits in one folder, version 1 in one for each controller.
first() { for file; do [ -r "$file" ] && read -r value <"$file" && echo "$value" && return; done; }
echo "pids $(first /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max)"
echo "memory $(first /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes)"

try() {
  if (true >"$1/consign-try") 2>/dev/null; then rm "$1/consign-try"; echo "write:$1 yes"; else echo "write:$1 no"; fi
}
for folder in / /bin /etc /usr /proc/sys /sys "$NOMAD_ALLOC_DIR/data" "$NOMAD_TASK_DIR" "$NOMAD_SECRETS_DIR" /tmp "$HOME"; do
  try "$folder"
done

# The mode that it has: under exec it is the node's own file.
(chmod 755 /bin/cat) 2>/dev/null && echo "chmod yes" || echo "chmod no"
(chown 1:1 "$NOMAD_TASK_DIR/formula") 2>/dev/null && echo "chown yes" || echo "chown no"
for socket in /var/run/docker.sock /run/docker.sock /run/containerd/containerd.sock; do
  [ -e "$socket" ] && echo "socket $socket"
done
echo "first-process $(tr '\0' ' ' </proc/1/cmdline)"
echo "user $(id -u)"
"#;

fn seen(result: &Value) -> BTreeMap<&str, &str> {
    let lines = result["logs"].as_str().unwrap().lines();
    lines.map(|line| line.split_once(' ').unwrap_or((line, ""))).collect()
}

fn has(seen: &BTreeMap<&str, &str>, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(seen.get(name), Some(value), "{name}: {seen:#?}");
    }
}

#[tokio::test]
async fn a_task_under_docker_has_no_more_than_it_needs() {
    let world = world("hardened", &docker(images::SYSTEM)).await;
    let _agent = world.agent().await;
    let forks = "i=0\nwhile [ $i -lt 600 ]; do sleep 60 & i=$((i + 1)); done\necho no limit\n";
    let memory = "echo begin\nhead -c 400000000 /dev/zero | tail\necho no limit\n";
    commit(&world, &[("look.sh", LOOK, ""), ("forks.sh", forks, ""), ("memory.sh", memory, "")]);

    let look = world.result("look", LIMIT).await;
    ends_with_code(&look, "succeeded", "success", 0);
    let seen = seen(&look);
    let none = "0000000000000000";
    has(&seen, &[("CapInh", none), ("CapPrm", none), ("CapEff", none), ("CapBnd", none), ("CapAmb", none)]);
    has(&seen, &[("NoNewPrivs", "1"), ("Seccomp", "2"), ("pids", "512"), ("memory", "268435456")]);
    for folder in ["/", "/bin", "/etc", "/usr", "/proc/sys", "/sys"] {
        has(&seen, &[(&format!("write:{folder}"), "no")]);
    }
    for folder in ["/alloc/data", "/local", "/secrets", "/tmp", "/local/home"] {
        has(&seen, &[(&format!("write:{folder}"), "yes")]);
    }
    has(&seen, &[("chmod", "no"), ("chown", "no"), ("user", "0")]);
    assert!(seen["first-process"].ends_with("consign/wrapper "), "processes of its own alone: {seen:#?}");
    assert!(!seen.contains_key("socket"), "{seen:#?}");

    let forks = world.result("forks", LIMIT).await;
    assert_eq!((&forks["outcome"], &forks["cause"]), (&"failed".into(), &"exit_code".into()), "{forks}");
    assert!(!forks["logs"].as_str().unwrap().contains("no limit"), "{forks}");
    let memory = world.result("memory", LIMIT).await;
    assert_eq!((&memory["outcome"], &memory["cause"]), (&"failed".into(), &"oom".into()), "{memory}");
    assert_eq!(memory["logs"].as_str().unwrap().lines().next(), Some("begin"), "{memory}");
    let peak = memory["usage"]["peak_memory"].as_u64();
    assert!(peak.is_some_and(|bytes| (1 << 26..=1 << 28).contains(&bytes)), "{memory}");
}

#[tokio::test]
async fn a_task_under_exec_has_its_chroot_its_processes_and_its_memory() {
    let world = world("exec-isolated", EXEC).await;
    let _agent = world.agent().await;
    let memory = "echo begin\nhead -c 400000000 /dev/zero | tail\necho no limit\n";
    commit(&world, &[("look.sh", LOOK, ""), ("memory.sh", memory, "")]);
    let look = world.result("look", LIMIT).await;
    ends_with_code(&look, "succeeded", "success", 0);
    let seen = seen(&look);
    let none = "0000000000000000";
    has(&seen, &[("CapInh", none), ("CapPrm", none), ("CapEff", none), ("CapBnd", none), ("CapAmb", none)]);
    has(&seen, &[("chmod", "no"), ("chown", "no")]);
    assert_ne!(seen["user"], "0");
    for folder in ["/bin", "/etc", "/usr", "/proc/sys", "/sys"] {
        has(&seen, &[(&format!("write:{folder}"), "no")]);
    }
    for folder in ["/alloc/data", "/local", "/tmp"] {
        has(&seen, &[(&format!("write:{folder}"), "yes")]);
    }
    assert!(!seen.contains_key("socket"), "{seen:#?}");
    let memory = world.result("memory", LIMIT).await;
    assert_eq!((&memory["outcome"], &memory["cause"]), (&"failed".into(), &"oom".into()), "{memory}");
}
