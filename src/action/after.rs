//! Actions that wait for each other in a circle, so that none of them could ever run.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::ActionId;

/// What each action waits for, by the key of its id ([`ActionId::key`]).
pub type Waiting<'after> = BTreeMap<String, &'after [ActionId]>;

/// The circles that actions wait for in vain: by the key of an action that is in one, or waits for one that is,
/// the ids from it on until one comes again.
#[must_use]
pub fn circles<'after>(waiting: &Waiting<'after>) -> BTreeMap<String, Vec<&'after ActionId>> {
    let stuck = stuck(waiting);
    let way = |key: &String| {
        let mut way: Vec<&ActionId> = Vec::new();
        let mut at = key.clone();
        while let Some(next) =
            stuck.get(&at).and_then(|after| after.iter().find(|id| stuck.contains_key(&id.key())))
        {
            at = next.key();
            let again = way.iter().any(|known| known.key() == at);
            way.push(next);
            if again || at == *key {
                break;
            }
        }
        way
    };
    stuck.keys().map(|key| (key.clone(), way(key))).collect()
}

/// What is wrong with the action `own` that waits for a circle, in a sentence.
#[must_use]
pub fn message(own: &str, circle: &[&ActionId]) -> String {
    let names: Vec<&str> = circle.iter().map(|id| id.as_str()).collect();
    format!(
        "`after` goes in a circle: {own} waits for {}; none of them can ever run",
        names.join(", which waits for ")
    )
}

/// What is left when whatever waits for nothing that waits is taken away, again and again.
fn stuck<'after>(waiting: &Waiting<'after>) -> Waiting<'after> {
    let mut followers: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    let mut open: BTreeMap<&String, usize> = BTreeMap::new();
    for (key, after) in waiting {
        let awaited: Vec<String> =
            after.iter().map(ActionId::key).filter(|id| waiting.contains_key(id)).collect();
        open.insert(key, awaited.len());
        for id in awaited {
            followers.entry(id).or_default().push(key);
        }
    }
    let mut free: VecDeque<&String> =
        open.iter().filter(|(_, count)| **count == 0).map(|(key, _)| *key).collect();
    let mut stuck = waiting.clone();
    while let Some(key) = free.pop_front() {
        stuck.remove(key);
        for follower in followers.get(key).into_iter().flatten() {
            if let Some(count) = open.get_mut(follower) {
                *count -= 1;
                if *count == 0 {
                    free.push_back(follower);
                }
            }
        }
    }
    stuck
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &str) -> Vec<ActionId> {
        names.split_whitespace().map(|name| ActionId::parse(name).unwrap()).collect()
    }

    #[test]
    fn circles_are_found_and_what_waits_for_one() {
        let after: Vec<(String, Vec<ActionId>)> = [
            ("a", "b"),
            ("b", "free A"),
            ("free", "ended"),
            ("chain", "free"),
            ("outside", "chain b"),
            ("x", "y y"),
            ("y", "z"),
            ("z", "x"),
        ]
        .map(|(key, after)| (key.to_owned(), ids(after)))
        .into();
        let waiting: Waiting<'_> = after.iter().map(|(key, after)| (key.clone(), after.as_slice())).collect();
        let found: Vec<(String, String)> = circles(&waiting)
            .into_iter()
            .map(|(key, circle)| (key, circle.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(" ")))
            .collect();
        let expected = [
            ("a", "b A"),
            ("b", "A b"),
            ("outside", "b A b"),
            ("x", "y z x"),
            ("y", "z x y"),
            ("z", "x y z"),
        ];
        assert_eq!(found, expected.map(|(key, circle)| (key.to_owned(), circle.to_owned())));
        let circle = ids("b a");
        assert_eq!(
            message("a", &circle.iter().collect::<Vec<_>>()),
            "`after` goes in a circle: a waits for b, which waits for a; none of them can ever run"
        );
    }
}
