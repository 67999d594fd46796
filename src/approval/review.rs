//! Whether a pull request was approved as a rule asks for: a pure decision over what the forge says of it.
//!
//! An approval counts if it was given at the pull request's final head, was not dismissed since, and is the last
//! word of somebody who may approve and is none of the authors. What does not count is told with its reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;

use crate::ids::Revision;

/// What a rule asks of a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The forge that reviews it; `None` is the only one that is configured.
    pub forge: Option<String>,
    /// How many people have to approve.
    pub approvals: usize,
    /// Of which team, as `organization/team` or a team of the repository's owner; `None` is everybody who may write
    /// to the repository.
    pub team: Option<String>,
    /// Whether the merge by an admin of the repository is an approval.
    pub admin_merge: bool,
}

/// Somebody whom the forge knows. The id decides: names can be changed and taken by others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Person {
    /// The forge's number for the account.
    pub id: i64,
    /// The account's name.
    pub login: String,
}

/// A pull request, as the forge tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// Its number in the repository.
    pub number: u64,
    /// Its page.
    pub url: String,
    /// The branch that it is for.
    pub base: String,
    /// Where the branch that it comes from stands now; its final head is another thing once it was merged.
    pub tip: String,
    /// Who opened it; `None` where the account is gone.
    pub author: Option<Person>,
    /// That it was merged.
    pub merged: Option<Merge>,
}

/// How a pull request came onto its branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// The commit that the branch stood at then.
    pub commit: Revision,
    /// Who merged it; `None` where the account is gone.
    pub by: Option<Person>,
}

/// What a review says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It approves.
    Approved,
    /// It asks for changes.
    ChangesRequested,
    /// It decides nothing: a comment, or a review that is not finished.
    Open,
}

/// One review of a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// The forge's number for it.
    pub id: i64,
    /// Who gave it.
    pub by: Person,
    /// What it says.
    pub verdict: Verdict,
    /// The commit that it was given at.
    pub commit: String,
    /// Whether somebody dismissed it since.
    pub dismissed: bool,
    /// Whether the forge itself calls it outdated.
    pub stale: bool,
    /// When it was given or last changed.
    pub at: Timestamp,
}

/// All that decides about one pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Its number.
    pub number: u64,
    /// Its head when it was merged.
    pub head: Revision,
    /// Whoever had a hand in it: who opened it, wrote, committed or pushed its commits.
    pub authors: BTreeSet<Person>,
    /// Its reviews, in any order.
    pub reviews: Vec<Review>,
    /// Who may approve, of those who reviewed it.
    pub approvers: BTreeSet<Person>,
    /// Who those are, in words, such as `the team acme/ops`.
    pub circle: String,
    /// The admin who merged it, where the rule takes that for an approval.
    pub merged_by_admin: Option<Person>,
}

/// Why a pull request is not approved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Shortfall {
    /// Its number.
    pub number: u64,
    /// Its head when it was merged.
    pub head: Revision,
    /// Who may approve, in words.
    pub circle: String,
    /// How many approvals count.
    pub have: usize,
    /// How many are needed.
    pub need: usize,
    /// The reviews that do not count, or speak against it.
    pub against: Vec<(Person, Why)>,
}

/// Why somebody's review is no approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The person is one of the authors.
    Author,
    /// The person may not approve.
    Outsider,
    /// It was given at another commit than the final head.
    Outdated {
        /// At which.
        commit: String,
    },
    /// The forge calls it outdated.
    Stale,
    /// It was dismissed.
    Dismissed,
    /// It asks for changes: others' approvals do not outvote it.
    ChangesRequested,
}

/// Gives whose approvals count, where there are `need` of them, at least one, and nobody who may approve asks for
/// changes.
pub fn judge(evidence: &Evidence, need: usize) -> Result<Vec<Person>, Shortfall> {
    let need = need.max(1);
    let is_author = |person: &Person| evidence.authors.iter().any(|author| author.id == person.id);
    let may_approve = |person: &Person| evidence.approvers.iter().any(|approver| approver.id == person.id);
    let mut last: BTreeMap<i64, &Review> = BTreeMap::new();
    for review in evidence.reviews.iter().filter(|review| review.verdict != Verdict::Open) {
        let known = last.entry(review.by.id).or_insert(review);
        if (review.at, review.id) > (known.at, known.id) {
            *known = review;
        }
    }
    let mut approved = BTreeSet::new();
    let mut against = Vec::new();
    for review in last.values() {
        let why = match review.verdict {
            Verdict::ChangesRequested if review.dismissed || !may_approve(&review.by) => continue,
            Verdict::Open => continue,
            _ if is_author(&review.by) => Why::Author,
            _ if !may_approve(&review.by) => Why::Outsider,
            _ if review.dismissed => Why::Dismissed,
            Verdict::ChangesRequested => Why::ChangesRequested,
            Verdict::Approved if review.commit != evidence.head.as_str() => {
                Why::Outdated { commit: review.commit.clone() }
            }
            Verdict::Approved if review.stale => Why::Stale,
            Verdict::Approved => {
                approved.insert(review.by.clone());
                continue;
            }
        };
        against.push((review.by.clone(), why));
    }
    if let Some(admin) = evidence.merged_by_admin.as_ref().filter(|admin| !is_author(admin)) {
        approved.insert(admin.clone());
    }
    let vetoed = against.iter().any(|(_, why)| *why == Why::ChangesRequested);
    if approved.len() >= need && !vetoed {
        return Ok(approved.into_iter().collect());
    }
    Err(Shortfall {
        number: evidence.number,
        head: evidence.head.clone(),
        circle: evidence.circle.clone(),
        have: approved.len(),
        need,
        against,
    })
}

impl fmt::Display for Need {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.approvals > 1 || self.team.is_some() {
            write!(formatter, " by {}", self.approvals)?;
        }
        if let Some(team) = &self.team {
            write!(formatter, " of the team {team}")?;
        }
        if let Some(forge) = &self.forge {
            write!(formatter, " on {forge}")?;
        }
        if self.admin_merge { formatter.write_str(" or an admin's merge") } else { Ok(()) }
    }
}

impl fmt::Display for Person {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.login)
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, head, circle, have, need, against } = self;
        let plural = if *need == 1 { "" } else { "s" };
        let head = short(head.as_str());
        write!(
            formatter,
            "pull request #{number} has {have} of {need} approval{plural} of {circle} at its final head {head}"
        )?;
        for (person, why) in against {
            match why {
                Why::Author => write!(formatter, "; {person} is one of its authors")?,
                Why::Outsider => write!(formatter, "; {person} is not of {circle}")?,
                Why::Outdated { commit } => write!(
                    formatter,
                    "; {person} approved it at {}, and it was changed after that",
                    short(commit)
                )?,
                Why::Stale => write!(formatter, "; the approval of {person} is outdated")?,
                Why::Dismissed => write!(formatter, "; the review of {person} was dismissed")?,
                Why::ChangesRequested => write!(formatter, "; {person} asks for changes")?,
            }
        }
        Ok(())
    }
}

/// The beginning of a commit's id, as people write it.
fn short(commit: &str) -> &str {
    commit.get(..10).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const EARLIER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    const ANN: i64 = 1;
    const BOB: i64 = 2;
    const EVE: i64 = 3;
    const KIM: i64 = 4;

    fn person(id: i64) -> Person {
        let names = ["nobody", "ann", "bob", "eve", "kim"];
        Person { id, login: names[usize::try_from(id).unwrap()].to_owned() }
    }

    /// A review, later than those before it in a list.
    fn review(id: i64, by: i64, verdict: Verdict) -> Review {
        Review {
            id,
            by: person(by),
            verdict,
            commit: HEAD.to_owned(),
            dismissed: false,
            stale: false,
            at: Timestamp::from_second(1_000 + id).unwrap(),
        }
    }

    /// Ann's pull request; Bob and Kim may approve.
    fn evidence(reviews: Vec<Review>) -> Evidence {
        Evidence {
            number: 7,
            head: Revision::parse(HEAD).unwrap(),
            authors: BTreeSet::from([person(ANN)]),
            reviews,
            approvers: BTreeSet::from([person(ANN), person(BOB), person(KIM)]),
            circle: "the team ops".to_owned(),
            merged_by_admin: None,
        }
    }

    #[test]
    fn an_approval_counts_or_says_why_not() {
        use Verdict::{Approved, ChangesRequested, Open};
        let good = review(1, BOB, Approved);
        let cases: [(&str, Vec<Review>, Option<&str>); 13] = [
            ("approved", vec![good.clone()], None),
            ("unapproved", vec![], Some("has 0 of 1 approval of the team ops at its final head aaaaaaaaaa")),
            ("self-approved", vec![review(1, ANN, Approved)], Some("ann is one of its authors")),
            ("by an outsider", vec![review(1, EVE, Approved)], Some("eve is not of the team ops")),
            (
                "then pushed to",
                vec![Review { commit: EARLIER.to_owned(), ..good.clone() }],
                Some("bob approved it at bbbbbbbbbb, and it was changed after that"),
            ),
            (
                "dismissed",
                vec![Review { dismissed: true, ..good.clone() }],
                Some("the review of bob was dismissed"),
            ),
            ("stale", vec![Review { stale: true, ..good.clone() }], Some("the approval of bob is outdated")),
            ("then commented on", vec![good.clone(), review(2, BOB, Open)], None),
            (
                "then taken back",
                vec![good.clone(), review(2, BOB, ChangesRequested)],
                Some("bob asks for changes"),
            ),
            ("given after a refusal", vec![review(0, BOB, ChangesRequested), good.clone()], None),
            (
                "refused by another",
                vec![good.clone(), review(2, KIM, ChangesRequested)],
                Some(
                    "has 1 of 1 approval of the team ops at its final head aaaaaaaaaa; kim asks for changes",
                ),
            ),
            (
                "refused, and that dismissed",
                vec![good.clone(), Review { dismissed: true, ..review(2, KIM, ChangesRequested) }],
                None,
            ),
            ("refused by an outsider", vec![good, review(2, EVE, ChangesRequested)], None),
        ];
        for (name, reviews, reason) in cases {
            let judged = judge(&evidence(reviews), 1);
            match reason {
                None => assert_eq!(judged, Ok(vec![person(BOB)]), "{name}"),
                Some(reason) => {
                    let said = judged.expect_err(name).to_string();
                    assert!(said.contains(reason), "{name}: {said}");
                }
            }
        }
    }

    #[test]
    fn as_many_people_are_needed_as_the_rule_says() {
        let twice = vec![review(1, BOB, Verdict::Approved), review(2, BOB, Verdict::Approved)];
        let said = judge(&evidence(twice), 2).unwrap_err();
        assert_eq!((said.have, said.need), (1, 2), "one person is one approval");
        let both = vec![review(1, BOB, Verdict::Approved), review(2, KIM, Verdict::Approved)];
        assert_eq!(judge(&evidence(both), 2), Ok(vec![person(BOB), person(KIM)]));
        assert!(judge(&evidence(vec![]), 0).is_err(), "no rule asks for nobody");
    }

    #[test]
    fn whoever_had_a_hand_in_it_does_not_approve_it() {
        let mut shared = evidence(vec![review(1, BOB, Verdict::Approved)]);
        shared.authors.insert(Person { id: BOB, login: "bob-renamed".to_owned() });
        let said = judge(&shared, 1).unwrap_err();
        assert_eq!(said.against, [(person(BOB), Why::Author)]);
    }

    #[test]
    fn a_merge_by_an_admin_is_an_approval_where_the_rule_says_so() {
        let plain = evidence(vec![]);
        assert!(judge(&plain, 1).is_err());
        let counted = |admin| Evidence { merged_by_admin: Some(person(admin)), ..plain.clone() };
        assert_eq!(judge(&counted(KIM), 1), Ok(vec![person(KIM)]));
        assert!(judge(&counted(KIM), 2).is_err(), "it is one");
        assert!(judge(&counted(ANN), 1).is_err(), "an author's own merge is none");
    }

    fn reviews() -> impl Strategy<Value = Vec<Review>> {
        let verdict =
            prop_oneof![Just(Verdict::Approved), Just(Verdict::ChangesRequested), Just(Verdict::Open),];
        let one = (0..20_i64, ANN..=KIM, verdict, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(id, by, verdict, at_head, dismissed, stale)| Review {
                commit: if at_head { HEAD } else { EARLIER }.to_owned(),
                dismissed,
                stale,
                ..review(id, by, verdict)
            },
        );
        proptest::collection::vec(one, 0..12)
    }

    proptest! {
        #[test]
        fn nothing_but_a_standing_approval_at_the_head_counts(reviews in reviews(), need in 0_usize..3) {
            let evidence = evidence(reviews);
            if let Ok(people) = judge(&evidence, need) {
                prop_assert!(people.len() >= need.max(1));
                for person in people {
                    prop_assert!(person.id != ANN && person.id != EVE);
                    let standing = evidence.reviews.iter().any(|review| {
                        review.by.id == person.id
                            && review.verdict == Verdict::Approved
                            && review.commit == HEAD
                            && !review.dismissed
                            && !review.stale
                    });
                    prop_assert!(standing);
                }
            }
        }

        #[test]
        fn the_order_of_the_list_means_nothing(reviews in reviews()) {
            let mut unique: Vec<Review> = Vec::new();
            for review in reviews {
                if !unique.iter().any(|known| known.id == review.id) {
                    unique.push(review);
                }
            }
            let forward = judge(&evidence(unique.clone()), 1);
            unique.reverse();
            prop_assert_eq!(forward, judge(&evidence(unique), 1));
        }
    }
}
