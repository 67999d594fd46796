//! A disk that is full, and a mirror of the ops repo with flipped bytes.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    outages::{commit_formulas, each_once, let_end, works},
    support::{LIMIT, Random, World},
};

/// A file system of 24 MiB; it goes with the value.
struct Small(PathBuf);

impl Small {
    fn at(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "small"]).arg(&path).status();
        assert!(status.unwrap().success(), "tests run as root");
        Self(path)
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Leaves no block free.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.ballast()).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[tokio::test]
async fn a_full_disk_holds_work_up_and_loses_none() {
    let world = World::new("full").await;
    let small = Small::at(world.path("small"));
    let store = |path: PathBuf| format!("path = {}", Value::from(path.to_str().unwrap()));
    let config = world.config_toml().replace(&store(world.path("store")), &store(world.path("small/store")));
    world.bootstrap_with(&config);
    let agent = world.agent().await;
    commit_formulas(&world);
    world.commit_action("working", "wait", "");
    works(&world, "working").await;
    small.fill();
    for id in ["one", "two", "three"] {
        world.commit_action(id, "note", "");
    }
    let_end(&world, "working");
    agent.degraded("full").await;
    assert_eq!(world.ledger_lines(), ["working"], "what cannot be put on record does not start");
    fs::remove_file(small.ballast()).unwrap();
    each_once(&world, &["working", "one", "two", "three"]).await;
    agent.recovered().await;

    // Full from the start: it says so, and starts once there is room.
    agent.kill();
    small.fill();
    let mut refused = world.launch_agent(&[]);
    assert_eq!(refused.ended().await.code(), Some(1));
    let said = refused.log();
    assert!(said.contains("No space left on device") || said.contains("disk is full"), "{said}");
    fs::remove_file(small.ballast()).unwrap();
    let agent = world.agent().await;
    world.commit_action("four", "note", "");
    each_once(&world, &["working", "one", "two", "three", "four"]).await;
    agent.recovered().await;
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Changes one bit of every file in `folder`.
fn flip_all(folder: &Path, random: &mut Random) {
    for path in files(folder) {
        flip(&path, random);
    }
}

fn flip(path: &Path, random: &mut Random) {
    let mut bytes = fs::read(path).unwrap();
    let place = usize::try_from(random.between(0, bytes.len() as u64)).unwrap();
    bytes[place] ^= 0x40;
    let new = path.with_extension("flipped");
    fs::write(&new, bytes).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn flipped_bytes_in_the_mirror_run_nothing_wrong_and_mend() {
    let world = World::new("flipped").await;
    world.bootstrap("");
    let mut agent = world.agent().await;
    commit_formulas(&world);
    let mut random = Random::new();
    let ids: Vec<String> = (0..6).map(|round| format!("action-{round}")).collect();
    for (round, id) in ids.iter().enumerate() {
        world.commit_action(id, "note", "");
        each_once(&world, &ids[..=round].iter().map(String::as_str).collect::<Vec<_>>()).await;
        // Under a running agent, and while there is none.
        let objects = world.path("store/mirror.git/repository.git/objects");
        if round % 2 == 1 {
            agent.kill();
            flip_all(&objects, &mut random);
            agent = world.agent().await;
        } else {
            flip_all(&objects, &mut random);
        }
    }
    world.commit_action("last", "note", "");
    assert_eq!(world.result("last", LIMIT).await["outcome"], "succeeded");
    agent.recovered().await;
}
