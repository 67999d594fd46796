//! The image that `scripts/container` builds.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

fn run(program: &str, arguments: &[&str], folder: &Path) -> Output {
    Command::new(program).args(arguments).current_dir(folder).output().unwrap()
}

fn extract(archive: &Path, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let output = run("tar", &["-xf", archive.to_str().unwrap()], folder);
    assert!(output.status.success(), "{output:?}");
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The blob that a descriptor names, once its digest has been checked.
fn blob(image: &Path, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let path = image.join("blobs/sha256").join(digest);
    let output = run("sha256sum", &[path.to_str().unwrap()], image);
    assert!(String::from_utf8(output.stdout).unwrap().starts_with(digest), "{}", path.display());
    assert_eq!(descriptor["size"].as_u64(), Some(path.metadata().unwrap().len()));
    path
}

#[test]
fn the_image_is_labelled_runs_without_a_shell_of_the_host_and_is_the_same_each_time() {
    let folder = tempfile::Builder::new().prefix("consign-image-").tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/container");
    let build = |name: &str| {
        let archive = folder.path().join(name);
        let output = Command::new(&script)
            .arg(&archive)
            .env("CONSIGN_BINARY", env!("CARGO_BIN_EXE_consign"))
            .env("CONSIGN_IMAGE", "registry.example/consign:test")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        archive
    };
    let archive = build("one.tar");
    let same = run("cmp", &[archive.to_str().unwrap(), build("two.tar").to_str().unwrap()], folder.path());
    assert!(same.status.success(), "{same:?}");

    let image = folder.path().join("image");
    extract(&archive, &image);
    let index = json(&image.join("index.json"));
    let named = &index["manifests"][0];
    assert_eq!(named["annotations"]["org.opencontainers.image.ref.name"], "registry.example/consign:test");
    let manifest = json(&blob(&image, named));
    let config = json(&blob(&image, &manifest["config"]));
    assert_eq!(config["config"]["User"], "10001:10001");
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/usr/bin/consign"]));
    let labels = &config["config"]["Labels"];
    assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    assert!(
        labels["org.opencontainers.image.revision"].as_str().is_some_and(|revision| !revision.is_empty())
    );
    let layer = blob(&image, &manifest["layers"][0]);
    assert_eq!(
        json(&image.join("manifest.json"))[0]["Layers"][0],
        layer.strip_prefix(&image).unwrap().to_str().unwrap()
    );

    let root = folder.path().join("root");
    extract(&layer, &root);
    fs::create_dir(root.join("dev")).unwrap();
    let made = run("mknod", &["-m", "666", "dev/null", "c", "1", "3"], &root);
    assert!(made.status.success(), "{made:?}");
    for (command, said) in [
        (&["/usr/bin/consign", "--version"][..], "consign "),
        (&["/usr/bin/git", "--version"], "git version "),
        (
            &["/bin/sh", "-c", "PATH=/usr/bin; git ls-remote https://localhost:1/x 2>&1; ssh -V 2>&1"],
            "OpenSSH",
        ),
    ] {
        let output = run("chroot", &[&[root.to_str().unwrap()], command].concat(), folder.path());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains(said), "{command:?}: {output:?}");
        // The part of git that speaks https was found, for it tried.
        assert!(!text.contains("remote helper"), "{text}");
    }
}
