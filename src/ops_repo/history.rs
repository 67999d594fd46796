//! Which commits gave a file its content.
//!
//! Git lists, for one path, the commits that changed it and the merges between them, with parents rewritten to
//! such commits. What follows the content back on that small graph is pure.

use std::collections::{BTreeSet, HashMap};

use super::{BlobId, Error, OpsRepo, git::Invocation};
use crate::ids::Revision;

const OPERATION: &str = "read the history of a file";

/// One commit of a path's history.
#[derive(Debug, Clone)]
struct Node {
    revision: Revision,
    /// Its parents, by their places in the list.
    parents: Vec<usize>,
    /// What stands at the path; `None` where nothing does.
    content: Option<BlobId>,
}

impl OpsRepo {
    /// The commits that gave the file at `path` the content that it has at `revision`; none where there is no
    /// such file, or where its history is not all there.
    ///
    /// Merges are followed to the side that the content came from. A merge that took another content than
    /// git's three-way rule gives is among the origins itself, and so is one that combined two contents.
    pub async fn origins(&self, revision: &Revision, path: &str) -> Result<Vec<Revision>, Error> {
        // The questions below are lines of text. In a shallow mirror the oldest commits look as if they had
        // made everything.
        if path.contains('\n') || self.mirror.git.repository.join("shallow").exists() {
            return Ok(Vec::new());
        }
        let arguments =
            ["rev-list", "--topo-order", "--full-history", "--parents", revision.as_str(), "--", path];
        let listed = self.mirror.git.text(Invocation::new(OPERATION, arguments)).await?;
        let names: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
        let questions: Vec<String> = names.iter().map(|name| format!("{name}:{path}\n")).collect();
        let check = ["cat-file", "--batch-check=%(objecttype) %(objectname)"];
        let contents =
            self.mirror.git.output(Invocation::new(OPERATION, check).input(questions.concat())).await?;
        let nodes = nodes(&listed, &contents).ok_or(Error::Answer { operation: OPERATION })?;
        Ok(origins(&nodes).into_iter().map(|node| nodes[node].revision.clone()).collect())
    }
}

/// The graph from the lines `<commit> <parent>…`, children first, and what stands at the path in each.
fn nodes(listed: &str, contents: &[u8]) -> Option<Vec<Node>> {
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split(' ').collect()).collect();
    let places: HashMap<&str, usize> =
        lines.iter().enumerate().filter_map(|(place, line)| Some((*line.first()?, place))).collect();
    let mut contents = contents.split(|byte| *byte == b'\n');
    let nodes = lines.iter().map(|line| {
        let (name, parents) = line.split_first()?;
        let answer = contents.next()?;
        let content =
            answer.strip_prefix(b"blob ").and_then(|id| BlobId::parse(std::str::from_utf8(id).ok()?));
        Some(Node {
            revision: Revision::parse(name).ok()?,
            parents: parents.iter().map(|parent| places.get(parent).copied()).collect::<Option<_>>()?,
            content,
        })
    });
    nodes.collect()
}

/// The nodes that gave the content which the first node has.
fn origins(nodes: &[Node]) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let Some(content) = nodes.first().and_then(|node| node.content.as_ref()) else { return found };
    let mut open = vec![0];
    let mut seen = BTreeSet::from([0]);
    while let Some(place) = open.pop() {
        let from = came_from(nodes, place, content);
        if from.is_empty() {
            found.insert(place);
        }
        open.extend(from.into_iter().filter(|parent| seen.insert(*parent)));
    }
    found
}

/// The parents that a commit has `content` from; none where it gave it itself.
fn came_from(nodes: &[Node], place: usize, content: &BlobId) -> Vec<usize> {
    let parents = &nodes[place].parents;
    let has = |node: usize| nodes[node].content.as_ref() == Some(content);
    // Both sides may have it from different commits, and all of those count.
    if parents.iter().all(|parent| has(*parent)) {
        return parents.clone();
    }
    let &[one, two] = parents.as_slice() else { return Vec::new() };
    let (from, other) = if has(one) { (one, two) } else { (two, one) };
    // The three-way rule: the side that differs from the base wins over the side that does not.
    let untouched = match merge_bases(nodes, one, two).as_slice() {
        [] => nodes[other].content.is_none(),
        bases => bases.iter().all(|base| nodes[*base].content == nodes[other].content),
    };
    if has(from) && untouched { vec![from] } else { Vec::new() }
}

/// The common ancestors of two commits, those left out that others descend from.
fn merge_bases(nodes: &[Node], one: usize, two: usize) -> Vec<usize> {
    let of_two = ancestors(nodes, two);
    let common: BTreeSet<usize> = ancestors(nodes, one).intersection(&of_two).copied().collect();
    let parents: BTreeSet<usize> =
        common.iter().flat_map(|node| nodes[*node].parents.iter().copied()).collect();
    common.difference(&parents).copied().collect()
}

/// A commit and all its ancestors.
fn ancestors(nodes: &[Node], node: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::from([node]);
    let mut open = vec![node];
    while let Some(node) = open.pop() {
        open.extend(nodes[node].parents.iter().copied().filter(|parent| found.insert(*parent)));
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A history, children first: what stands at the path, and the places of the parents.
    fn history(commits: &[(Option<u8>, &[usize])]) -> Vec<Node> {
        let node = |(place, (content, parents)): (usize, &(Option<u8>, &[usize]))| Node {
            revision: Revision::parse(&format!("{place:040x}")).unwrap(),
            parents: parents.to_vec(),
            content: content.map(|content| BlobId::parse(&format!("{content:040x}")).unwrap()),
        };
        commits.iter().enumerate().map(node).collect()
    }

    fn found(commits: &[(Option<u8>, &[usize])]) -> Vec<usize> {
        origins(&history(commits)).into_iter().collect()
    }

    const A: Option<u8> = Some(1);
    const B: Option<u8> = Some(2);

    #[test]
    fn the_commit_that_wrote_it_is_the_origin() {
        assert!(found(&[]).is_empty());
        assert!(found(&[(None, &[1]), (A, &[])]).is_empty());
        assert_eq!(found(&[(A, &[1]), (B, &[])]), [0]);
        assert_eq!(found(&[(A, &[1]), (A, &[2]), (B, &[])]), [1]);
        assert_eq!(found(&[(A, &[])]), [0]);
    }

    #[test]
    fn a_merge_is_followed_to_the_side_that_changed_it() {
        // The other side has what the base has, whichever parent it is.
        assert_eq!(found(&[(A, &[1, 2]), (A, &[3]), (B, &[3]), (B, &[])]), [1]);
        assert_eq!(found(&[(A, &[2, 1]), (A, &[3]), (B, &[3]), (B, &[])]), [1]);
        assert_eq!(found(&[(A, &[1, 2]), (A, &[3]), (None, &[3]), (None, &[])]), [1]);
        // Unrelated histories, one of which never had it.
        assert_eq!(found(&[(A, &[1, 2]), (A, &[]), (None, &[])]), [1]);
    }

    #[test]
    fn a_merge_that_makes_a_choice_is_the_origin() {
        // Both sides changed it; one wins by choice.
        assert_eq!(found(&[(A, &[1, 2]), (A, &[3]), (B, &[3]), (None, &[])]), [0]);
        // It has what neither side has.
        assert_eq!(found(&[(Some(3), &[1, 2]), (A, &[3]), (B, &[3]), (None, &[])]), [0]);
        // An old state comes back, against the side that changed or deleted it.
        assert_eq!(found(&[(A, &[1, 2]), (B, &[2]), (A, &[])]), [0]);
        assert_eq!(found(&[(A, &[1, 2]), (None, &[2]), (A, &[])]), [0]);
        // Unrelated histories that both have it.
        assert_eq!(found(&[(A, &[1, 2]), (A, &[]), (B, &[])]), [0]);
    }

    #[test]
    fn all_origins_count_where_both_sides_have_it() {
        // Signed at 4, deleted at 3, restored unsigned at 2; a merge with the old branch hides none of it.
        let resurrected: &[(Option<u8>, &[usize])] = &[(A, &[1, 3]), (A, &[2]), (None, &[3]), (A, &[])];
        assert_eq!(found(resurrected), [1, 3]);
        assert_eq!(found(&[(A, &[3, 1]), (A, &[2]), (None, &[3]), (A, &[])]), [1, 3]);
    }

    #[test]
    fn criss_cross_merges_count_all_bases() {
        // 3 and 4 are merge bases of 1 and 2; one of them has another content than the side that yields.
        let cross: &[(Option<u8>, &[usize])] =
            &[(A, &[1, 2]), (A, &[3, 4]), (B, &[4, 3]), (A, &[5]), (B, &[5]), (B, &[])];
        assert_eq!(found(cross), [0]);
    }

    #[test]
    fn of_more_than_two_sides_all_have_to_agree() {
        assert_eq!(found(&[(A, &[1, 2, 3]), (A, &[4]), (A, &[4]), (A, &[4]), (A, &[])]), [4]);
        assert_eq!(found(&[(A, &[1, 2, 3]), (A, &[4]), (B, &[4]), (B, &[4]), (B, &[])]), [0]);
    }

    /// Any history of few commits: for each what stands there, and one parent or two among the next few.
    fn histories() -> impl Strategy<Value = Vec<Node>> {
        let commit = (0_u8..3, 1_usize..4, 1_usize..5, any::<bool>());
        proptest::collection::vec(commit, 2..10).prop_map(|commits| {
            let count = commits.len();
            let node = |(place, (content, one, two, merge)): (usize, (u8, usize, usize, bool))| {
                let mut parents = vec![place + one, place + two];
                parents.truncate(if merge && one != two { 2 } else { 1 });
                parents.retain(|parent| *parent < count);
                (Some(content).filter(|content| *content > 0), parents)
            };
            let nodes: Vec<_> = commits.into_iter().enumerate().map(node).collect();
            let borrowed: Vec<_> =
                nodes.iter().map(|(content, parents)| (*content, parents.as_slice())).collect();
            history(&borrowed)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Where the content was once given up, no merge alone brings it back: nothing between the tip and its
        /// only origin has another content.
        #[test]
        fn content_comes_back_by_a_choice_alone(nodes in histories()) {
            let origins = origins(&nodes);
            prop_assert_eq!(origins.is_empty(), nodes[0].content.is_none());
            if let (1, Some(origin)) = (origins.len(), origins.first()) {
                let other = ancestors(&nodes, 0).into_iter().find(|node| {
                    ancestors(&nodes, *node).contains(origin) && nodes[*node].content != nodes[0].content
                });
                prop_assert_eq!(other, None, "the origin is {}", origin);
            }
        }
    }
}
