//! A kept file as it is told over HTTP, in a job's details and to receivers of webhooks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{content_type, name};
use crate::outcome::result_file::Artifact;

/// The largest artifact whose content stands beside its description, in bytes.
pub const INLINE_LIMIT: u64 = 256 * 1024;
/// The most that the artifacts of one job whose content is there hold together, in bytes; those after that have
/// their `url` alone.
pub const INLINE_TOTAL: u64 = 1024 * 1024;

/// One kept file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "DescribedArtifact")]
pub struct Described {
    /// Its path, relative to the task's working directory.
    pub name: String,
    /// Its media type, as its name suggests.
    pub content_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// The SHA-256 of its content, in hexadecimal.
    pub sha256: String,
    /// Its content in base64, where it has at most 256 KiB and those before it have at most 1 MiB together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Where it can be had otherwise: a path on the agent's HTTP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl Described {
    /// What is said of a job's artifact, without its content.
    #[must_use]
    pub fn of(job_id: &str, artifact: &Artifact) -> Self {
        let Artifact { name, size, sha256, .. } = artifact;
        Self {
            name: name.clone(),
            content_type: content_type::of(name).to_owned(),
            size: *size,
            sha256: sha256.clone(),
            data: None,
            url: Some(name::url(job_id, name)),
        }
    }
}

/// The artifacts of one job whose content stands beside them, in order.
pub fn inlined(artifacts: &mut [Described]) -> impl Iterator<Item = &mut Described> {
    let mut left = INLINE_TOTAL;
    artifacts.iter_mut().filter(move |artifact| {
        let fits = artifact.size <= INLINE_LIMIT.min(left);
        left -= if fits { artifact.size } else { 0 };
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(name: &str, size: u64) -> Described {
        let artifact = Artifact { name: name.to_owned(), size, sha256: "ab".to_owned(), url: None };
        Described::of("01J", &artifact)
    }

    #[test]
    fn a_description_says_what_it_is_and_where() {
        let described = described("a b/report.json", 7);
        assert_eq!((described.content_type.as_str(), described.size), ("application/json", 7));
        assert_eq!(described.url.as_deref(), Some("/jobs/01J/artifacts/a%20b/report.json"));
        assert_eq!((described.sha256.as_str(), described.data), ("ab", None));
    }

    #[test]
    fn small_artifacts_are_inlined_up_to_the_total() {
        let small = INLINE_LIMIT;
        let sizes = [small, small + 1, small, small, small, 1, 0];
        let mut artifacts: Vec<Described> =
            sizes.iter().enumerate().map(|(number, size)| described(&number.to_string(), *size)).collect();
        let names: Vec<&str> = inlined(&mut artifacts).map(|artifact| artifact.name.as_str()).collect();
        assert_eq!(names, ["0", "2", "3", "4", "6"]);
    }
}
