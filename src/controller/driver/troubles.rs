//! Which jobs and children a failing server holds up: pure.
//!
//! That one job got through says nothing about the others, for not every step needs every server. A trouble
//! has passed when nothing is held up by it any more.

use std::collections::HashMap;

use super::super::health::Subject;
use crate::ids::JobId;

/// What can be held up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Held {
    /// A job, whose step failed.
    Job(JobId),
    /// A child that no job knows, which could not be met.
    Child(String),
}

/// What is held up, and by what.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    held: HashMap<Held, Subject>,
}

impl Troubles {
    /// Something is held up; gives the trouble that held it up before, where nothing else has that any more.
    pub(super) fn began(&mut self, held: Held, subject: Subject) -> Option<Subject> {
        let before = self.held.insert(held, subject)?;
        self.is_over(before).then_some(before)
    }

    /// Something goes on, or is gone; gives the trouble that is over by it.
    pub(super) fn passed(&mut self, held: &Held) -> Option<Subject> {
        let subject = self.held.remove(held)?;
        self.is_over(subject).then_some(subject)
    }

    /// The children that could not be met.
    pub(super) fn children(&self) -> impl Iterator<Item = &str> {
        self.held.keys().filter_map(|held| match held {
            Held::Child(child) => Some(child.as_str()),
            Held::Job(_) => None,
        })
    }

    fn is_over(&self, subject: Subject) -> bool {
        !self.held.values().any(|other| *other == subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_over_with_the_last_that_it_held_up() {
        let mut troubles = Troubles::default();
        let (one, two) = (Held::Job(JobId::new()), Held::Job(JobId::new()));
        assert_eq!(troubles.began(one.clone(), Subject::Vault), None);
        assert_eq!(troubles.began(two.clone(), Subject::Vault), None);
        assert_eq!(troubles.began(two.clone(), Subject::Vault), None);
        assert_eq!(troubles.passed(&one), None);
        assert_eq!(troubles.passed(&one), None);
        assert_eq!(troubles.passed(&two), Some(Subject::Vault));
    }

    #[test]
    fn another_trouble_takes_the_place_of_the_first() {
        let mut troubles = Troubles::default();
        let child = Held::Child("runner/dispatch-1".to_owned());
        assert_eq!(troubles.began(child.clone(), Subject::Vault), None);
        assert_eq!(troubles.began(child.clone(), Subject::Nomad), Some(Subject::Vault));
        assert_eq!(troubles.children().collect::<Vec<_>>(), ["runner/dispatch-1"]);
        assert_eq!(troubles.passed(&child), Some(Subject::Nomad));
    }
}
