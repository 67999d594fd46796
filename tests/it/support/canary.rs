//! Secrets that are looked for where they must not be: as they are, and as programs commonly write them.

use std::{fs, path::Path, process::Command};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use regex::bytes::RegexSet;

/// Texts that must not be found, each by a name under which it is told.
#[derive(Debug)]
pub(crate) struct Canaries {
    names: Vec<String>,
    forms: RegexSet,
}

impl Canaries {
    /// Texts shorter than 8 bytes would be found by chance.
    pub(crate) fn new(texts: &[(&str, &str)]) -> Self {
        let mut names = Vec::new();
        let mut patterns = Vec::new();
        for (name, text) in texts {
            assert!(text.len() >= 8, "{name} is too short to be looked for");
            for (form, pattern) in forms(text) {
                names.push(format!("{name} {form}"));
                patterns.push(regex::escape(&pattern));
            }
        }
        Self { names, forms: RegexSet::new(patterns).unwrap() }
    }

    /// What of them stands in `bytes`.
    pub(crate) fn in_bytes(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let found = self.forms.matches(bytes);
        found.into_iter().map(|index| format!("{}: {place}", self.names[index])).collect()
    }

    /// What of them stands in a file, or in the files below a folder, or in their names.
    pub(crate) fn in_path(&self, path: &Path) -> Vec<String> {
        let mut found = self.in_bytes("a path", path.as_os_str().as_encoded_bytes());
        let Ok(kind) = path.symlink_metadata() else { return found };
        if kind.is_dir() {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            found.extend(entries.flat_map(|entry| self.in_path(&entry.path())));
        } else if kind.is_file() {
            // A file may go away while the folder is searched.
            let content = fs::read(path).unwrap_or_default();
            found.extend(self.in_bytes(&path.display().to_string(), &content));
        }
        found
    }

    /// What of them stands in the objects and references of a git repository.
    pub(crate) fn in_repository(&self, repository: &Path) -> Vec<String> {
        let output = |arguments: &[&str]| {
            let output = Command::new("git").arg("-C").arg(repository).args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        let objects = output(&["cat-file", "--batch", "--batch-all-objects"]);
        let references = output(&["for-each-ref"]);
        let place = repository.display().to_string();
        [objects, references].iter().flat_map(|bytes| self.in_bytes(&place, bytes)).collect()
    }

    /// What of them stands in the arguments and in the environment of a process.
    pub(crate) fn in_process(&self, pid: u32) -> Vec<String> {
        let files = ["cmdline", "environ"].map(|name| format!("/proc/{pid}/{name}"));
        files.iter().flat_map(|file| self.in_bytes(file, &fs::read(file).unwrap())).collect()
    }
}

/// The forms that a text is looked for in, each by its name.
fn forms(text: &str) -> Vec<(String, String)> {
    let hex = |upper: bool| {
        let digits = |byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
        text.bytes().map(digits).collect::<Vec<_>>().concat()
    };
    let url = text
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect::<Vec<_>>()
        .concat();
    let json = serde_json::to_string(text).unwrap();
    let mut forms = vec![
        ("as it is".to_owned(), text.to_owned()),
        ("in hexadecimal".to_owned(), hex(false)),
        ("in hexadecimal".to_owned(), hex(true)),
        ("in a URL".to_owned(), url),
        ("in JSON".to_owned(), json[1..json.len() - 1].to_owned()),
    ];
    for offset in 0..3 {
        // What stands before it and after it decides on the characters at the ends.
        let whole = [vec![0; offset], text.as_bytes().to_vec()].concat();
        let kept = (offset * 8).div_ceil(6)..whole.len() * 8 / 6;
        for engine in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&whole);
            forms.push((format!("in base64 from byte {offset}"), encoded[kept.clone()].to_owned()));
        }
    }
    forms
}

#[test]
fn a_canary_is_found_in_every_form_and_others_are_not() {
    let text = "bird/+?~ \"ä\\sings";
    let canaries = Canaries::new(&[("bird", text)]);
    for offset in 0..4 {
        let whole = format!("{}{text}, it is said", &"abcd"[..offset]);
        for engine in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
            assert_ne!(canaries.in_bytes("base64", engine.encode(&whole).as_bytes()), Vec::<String>::new());
        }
        assert_eq!(canaries.in_bytes("raw", whole.as_bytes()), ["bird as it is: raw"]);
    }
    let url = b"q=bird%2F%2B%3F~%20%22%C3%A4%5Csings";
    assert_eq!(canaries.in_bytes("url", url), ["bird in a URL: url"]);
    assert_eq!(canaries.in_bytes("json", "\"bird/+?~ \\\"ä\\\\sings\"".as_bytes()), ["bird in JSON: json"]);
    assert_eq!(canaries.in_bytes("hex", b"62697264 62697264"), Vec::<String>::new());
}
