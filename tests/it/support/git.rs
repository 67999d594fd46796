//! Git as the tests use it: nothing of the user's configuration or environment reaches it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use consign::{
    ops_repo::{Keys, OpsRepo, RemoteUrl, Settings},
    program,
};

/// The ops repo `remote` as an agent with the plainest settings reads it, with its mirror in `folder`.
pub(crate) async fn mirror(remote: &str, folder: PathBuf) -> OpsRepo {
    let settings = Settings {
        remote: RemoteUrl::parse(remote).unwrap(),
        branch: "main".to_owned(),
        mirror: folder,
        actions: "actions".to_owned(),
        formulas: "formulas".to_owned(),
        author_name: "consign".to_owned(),
        author_email: "consign@example.invalid".to_owned(),
        results_branch: None,
        signing_key: None,
        keys: Keys::default(),
    };
    OpsRepo::open(settings).await.unwrap()
}

/// A bare repository and a working clone to commit from.
#[derive(Debug)]
pub(crate) struct Git {
    pub(crate) bare: PathBuf,
    clone: PathBuf,
    /// What `main` was when its paths were asked for, and these.
    known: Mutex<(String, Vec<String>)>,
}

impl Git {
    /// Makes `ops.git`, with one empty commit on `main`, and its clone in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        let git = Self { bare: folder.join("ops.git"), clone: folder.join("ops"), known: Mutex::default() };
        for path in [&git.bare, &git.clone] {
            fs::create_dir_all(path).unwrap();
        }
        run(&git.bare, &["init", "--quiet", "--bare", "--initial-branch=main", "."]).unwrap();
        run(&git.clone, &["init", "--quiet", "--initial-branch=main", "."]).unwrap();
        run(&git.clone, &["remote", "add", "origin", git.bare.to_str().unwrap()]).unwrap();
        run(&git.clone, &["commit", "--quiet", "--allow-empty", "--message=Begin"]).unwrap();
        run(&git.clone, &["push", "--quiet", "origin", "main"]).unwrap();
        git
    }

    /// Another clone of the same repository, in `folder`.
    pub(crate) fn another(&self, folder: &Path) -> Self {
        fs::create_dir(folder).unwrap();
        let git = Self { bare: self.bare.clone(), clone: folder.to_path_buf(), known: Mutex::default() };
        git.clone(&["init", "--quiet", "--initial-branch=main", "."]);
        git.clone(&["remote", "add", "origin", git.bare.to_str().unwrap()]);
        git
    }

    /// Commits `files` (none as content deletes one) on top of what the repository has, and gives the revision.
    pub(crate) fn commit(&self, message: &str, files: &[(&str, Option<&str>)]) -> String {
        self.commit_work(message, |folder| {
            for (path, content) in files {
                let path = folder.join(path);
                match content {
                    Some(content) => {
                        fs::create_dir_all(path.parent().unwrap()).unwrap();
                        fs::write(path, content).unwrap();
                    }
                    None => fs::remove_file(path).unwrap(),
                }
            }
        })
    }

    /// Commits what `work` does to the work tree, for files that are no text or no regular files. It is done
    /// again where the branch moved meanwhile.
    pub(crate) fn commit_work(&self, message: &str, work: impl Fn(&Path)) -> String {
        loop {
            let revision = self.commit_aside(message, &work);
            // A result that was pushed in between moved the branch: begin again on top of it.
            if run(&self.clone, &["push", "--quiet", "origin", "HEAD:main"]).is_ok() {
                return revision;
            }
        }
    }

    /// The same without pushing it: a commit to merge.
    pub(crate) fn commit_aside(&self, message: &str, work: impl Fn(&Path)) -> String {
        self.clone(&["fetch", "--quiet", "origin", "main"]);
        self.clone(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
        work(&self.clone);
        self.clone(&["add", "--all"]);
        self.clone(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.clone(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Has commits signed from now on as these settings of git's say; without any, not signed.
    pub(crate) fn sign_with(&self, settings: &[(&str, &str)]) {
        self.clone(&["config", "commit.gpgsign", if settings.is_empty() { "false" } else { "true" }]);
        for (key, value) in settings {
            self.clone(&["config", key, value]);
        }
    }

    /// Rewrites history: `main` becomes `revision`.
    pub(crate) fn force(&self, revision: &str) {
        self.bare(&["update-ref", "refs/heads/main", revision]);
    }

    /// The paths on `main`. Git is asked only where the branch has moved since: tests that wait look often.
    pub(crate) fn paths(&self) -> Vec<String> {
        let tip = fs::read_to_string(self.bare.join("refs/heads/main")).unwrap_or_default();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if tip.is_empty() || known.0 != tip {
            let listed = self.bare(&["ls-tree", "-r", "--name-only", "main"]);
            *known = (tip, listed.lines().map(str::to_owned).collect());
        }
        known.1.clone()
    }

    /// A file on `main`.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        run(&self.bare, &["show", &format!("main:{path}")]).ok()
    }

    /// Runs git in the bare repository.
    pub(crate) fn bare(&self, arguments: &[&str]) -> String {
        run(&self.bare, arguments).unwrap()
    }

    /// Runs git in the clone.
    pub(crate) fn clone(&self, arguments: &[&str]) -> String {
        run(&self.clone, arguments).unwrap()
    }
}

fn run(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program::find("git").expect("git is on PATH"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "A Tester")
        .env("GIT_AUTHOR_EMAIL", "tester@example.invalid")
        .env("GIT_COMMITTER_NAME", "A Tester")
        .env("GIT_COMMITTER_EMAIL", "tester@example.invalid")
        .output()
        .expect("git runs");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}
