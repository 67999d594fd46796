use jiff::Timestamp;

use super::*;
use crate::{
    dispatch::shape::{Mount, Shape},
    formula::Body,
    ids::{ActionId, BotName, Revision, SecretName},
    lifecycle::Event,
};

fn rules(extra: Vec<Rule>) -> Rules {
    Rules {
        low: Requirement::Merged,
        medium: Requirement::Signed,
        high: Requirement::Review,
        submitted: Requirement::Merged,
        rules: extra,
    }
}

fn work(blast_radius: Option<BlastRadius>, secrets: &[&str]) -> Work {
    let mount = Mount { alias: "ssh".to_owned(), ..Mount::default() };
    Work {
        formula: Some(FormulaName::parse("deploy-web").unwrap()),
        secrets: secrets.iter().map(|name| SecretName::parse(name).unwrap()).collect(),
        blast_radius,
        shape: Shape { mounts: vec![mount], ..Shape::default() },
        ..Work::default()
    }
}

fn revision() -> Revision {
    Revision::parse(&"a".repeat(40)).unwrap()
}

fn committed(work: Work) -> Job {
    let id = ActionId::parse("a").unwrap();
    let origin =
        Origin::Action { id, path: "actions/a.toml".to_owned(), blob: String::new(), revision: revision() };
    Job::new(origin, work, Timestamp::UNIX_EPOCH)
}

#[test]
fn missing_is_high_and_a_secret_is_at_least_medium() {
    let plain = rules(vec![]);
    let tier = |blast_radius, secrets| plain.classify(&work(blast_radius, secrets)).tier;
    assert_eq!(tier(None, &[]), BlastRadius::High);
    assert_eq!(tier(Some(BlastRadius::Low), &[]), BlastRadius::Low);
    assert_eq!(tier(Some(BlastRadius::Low), &["A"]), BlastRadius::Medium);
    assert_eq!(tier(Some(BlastRadius::High), &["A"]), BlastRadius::High);
}

#[test]
fn the_last_rule_that_matches_and_gives_a_key_decides_and_is_named() {
    let by = |extra| {
        let need = rules(extra).classify(&work(Some(BlastRadius::Low), &["PROD_KEY"]));
        (need.tier, need.requirement, need.rule)
    };
    let raised =
        Rule { secret: Some("PROD_*".to_owned()), blast_radius: Some(BlastRadius::High), ..Rule::default() };
    let words = "review (high blast radius, by the rule for secret PROD_*)".to_owned();
    assert_eq!(by(vec![raised.clone()]), (BlastRadius::High, Requirement::Review, words));
    let lowered = Rule {
        formula: Some("deploy-*".to_owned()),
        mount: Some("ssh".to_owned()),
        blast_radius: Some(BlastRadius::Low),
        ..Rule::default()
    };
    let words = "merged (low blast radius, by the rule for formula deploy-* and mount ssh)".to_owned();
    assert_eq!(by(vec![raised.clone(), lowered]), (BlastRadius::Low, Requirement::Merged, words));
    let elsewhere =
        Rule { mount: Some("gpg".to_owned()), require: Some(Requirement::Merged), ..Rule::default() };
    let words = "signed (medium blast radius)".to_owned();
    assert_eq!(by(vec![elsewhere]), (BlastRadius::Medium, Requirement::Signed, words));
    let named = Rule {
        require: Some(Requirement::Signed),
        signers: Some(vec!["ann@*".to_owned(), "bob".to_owned()]),
        ..Rule::default()
    };
    let words = "signed by ann@* or bob (high blast radius, by the rule for secret PROD_*, signed by the rule for everything)";
    assert_eq!(by(vec![raised, named]), (BlastRadius::High, Requirement::Signed, words.to_owned()));
}

#[test]
fn a_bots_token_is_a_secret() {
    let low = work(Some(BlastRadius::Low), &[]);
    let bot = Work { bot: Some(BotName::parse("night-shift").unwrap()), ..low.clone() };
    assert_eq!(rules(vec![]).classify(&bot).tier, BlastRadius::Medium);
    let raised = rules(vec![Rule {
        secret: Some("bot-night-*".to_owned()),
        require: Some(Requirement::Review),
        ..Rule::default()
    }]);
    assert_eq!(raised.classify(&bot).requirement, Requirement::Review);
    assert_eq!(raised.classify(&low).requirement, Requirement::Merged);
}

#[test]
fn only_what_needs_no_evidence_is_approved_without() {
    let decide = |work| rules(vec![]).decide(&committed(work), "d".to_owned());
    let Decision::Waiting { reason, .. } = decide(work(None, &[])) else { panic!("approved by accident") };
    assert!(reason.contains("review (high blast radius)"), "{reason}");
    assert!(matches!(decide(work(Some(BlastRadius::Medium), &[])), Decision::Waiting { .. }));
    let Decision::Approved(approval) = decide(work(Some(BlastRadius::Low), &[])) else { panic!() };
    assert_eq!((approval.to_string().as_str(), approval.digest.as_str()), ("merged (low blast radius)", "d"));
    assert_eq!(approval.evidence, [Evidence::Merged { revision: "a".repeat(40) }]);
}

#[test]
fn what_is_submitted_needs_its_tiers_approval_and_that_of_all_submissions() {
    let decision = |blast_radius, submitted| {
        let rules = Rules { submitted, ..rules(vec![]) };
        let origin = Origin::Submitted { by: "ann".to_owned(), revision: revision() };
        let job = Job { origin, ..committed(work(Some(blast_radius), &[])) };
        rules.decide(&job, "d".to_owned())
    };
    let merged = decision(BlastRadius::Low, Requirement::Merged);
    assert!(matches!(&merged, Decision::Approved(approval) if approval.rule.contains("ann")), "{merged:?}");
    for (blast_radius, submitted) in [
        (BlastRadius::Medium, Requirement::Merged),
        (BlastRadius::High, Requirement::Merged),
        (BlastRadius::Low, Requirement::Signed),
        (BlastRadius::Low, Requirement::Review),
    ] {
        let decision = decision(blast_radius, submitted);
        assert!(matches!(decision, Decision::Waiting { .. }), "{blast_radius:?} {submitted:?}");
    }
}

#[test]
fn an_approval_holds_for_its_rule_and_digest_alone() {
    let old = rules(vec![]);
    let body = Some(Body::Program("true".to_owned()));
    let mut job = committed(Work { body, ..work(Some(BlastRadius::Low), &[]) });
    let before = old.withdraws(&job, "d").unwrap();
    assert!(before.contains("earlier version"), "{before}");
    let Decision::Approved(approval) = old.decide(&job, "d".to_owned()) else { panic!() };
    job.apply(Event::Approved(approval), Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(old.withdraws(&job, "d"), None);
    assert!(old.withdraws(&job, "e").unwrap().contains("its base job or the configuration changed"));
    let stricter = Rules { low: Requirement::Signed, ..rules(vec![]) };
    assert!(stricter.withdraws(&job, "d").unwrap().contains("has to be signed (low blast radius)"));
    let tier = Rule { blast_radius: Some(BlastRadius::Low), ..Rule::default() };
    assert!(rules(vec![tier]).withdraws(&job, "d").unwrap().contains("by the rule for everything"));

    job.origin = Origin::Submitted { by: "ann".to_owned(), revision: revision() };
    let Decision::Approved(approval) = old.decide(&job, "d".to_owned()) else { panic!() };
    job.apply(Event::Approved(approval), Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(old.withdraws(&job, "d"), None);
    let stricter = Rules { submitted: Requirement::Review, ..rules(vec![]) };
    assert!(stricter.withdraws(&job, "d").unwrap().contains("review by [approval] api"));
}

#[test]
fn stars_stand_for_any_text() {
    for (pattern, text, expected) in [
        ("*", "", true),
        ("a*c", "abc", true),
        ("a*c", "ab", false),
        ("*b*", "abc", true),
        ("a*a", "a", false),
        ("plain", "plain", true),
    ] {
        assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
    }
}

#[test]
fn what_a_review_needs_is_put_together_from_the_rules_and_named() {
    let high = work(Some(BlastRadius::High), &[]);
    let plain = rules(vec![]).classify(&high);
    assert_eq!(plain.review, review::Need { forge: None, approvals: 1, team: None, admin_merge: false });
    assert_eq!(plain.rule, "review (high blast radius)");
    let given = vec![
        Rule { team: Some("ops".to_owned()), approvals: NonZeroU8::new(2), ..Rule::default() },
        Rule {
            formula: Some("deploy-*".to_owned()),
            forge: Some("main".to_owned()),
            team: Some("acme/leads".to_owned()),
            admin_merge: Some(true),
            ..Rule::default()
        },
    ];
    let need = rules(given).classify(&high);
    assert_eq!(
        need.rule, "review by 2 of the team acme/leads on main or an admin's merge (high blast radius)",
        "a changed rule has other words"
    );
    assert_eq!((need.review.approvals, need.review.team.as_deref()), (2, Some("acme/leads")));
}

#[test]
fn direct_is_accepted_only_where_a_rule_allows_it() {
    let decided = |tier, direct: Option<bool>| {
        let extra = direct.map(|direct| Rule { direct: Some(direct), ..Rule::default() });
        let work = Work { dispatch_mode: Some(DispatchMode::Direct), ..work(Some(tier), &[]) };
        rules(extra.into_iter().collect()).decide(&committed(work), "d".to_owned())
    };
    let approved = |tier, direct| match decided(tier, direct) {
        Decision::Approved(approval) => Some(approval.rule),
        Decision::Waiting { reason, .. } => {
            assert!(reason.contains("which no rule allows here"), "{reason}");
            None
        }
    };
    assert_eq!(approved(BlastRadius::Low, None).as_deref(), Some("merged (low blast radius)"));
    assert_eq!(approved(BlastRadius::Low, Some(false)), None);
    assert_eq!(approved(BlastRadius::High, None), None);
    let words = "merged (high blast radius, direct by the rule for everything)";
    assert_eq!(approved(BlastRadius::High, Some(true)).as_deref(), Some(words));
}

#[test]
fn a_rule_that_no_longer_allows_direct_withdraws_what_was_approved_by_it() {
    let ruled = |direct| rules(vec![Rule { direct: Some(direct), ..Rule::default() }]);
    for tier in [BlastRadius::Low, BlastRadius::High] {
        let body = Some(Body::Program("true".to_owned()));
        let mode = Some(DispatchMode::Direct);
        let mut job = committed(Work { body, dispatch_mode: mode, ..work(Some(tier), &[]) });
        let Decision::Approved(approval) = ruled(true).decide(&job, "d".to_owned()) else {
            panic!("{tier:?}")
        };
        job.apply(Event::Approved(approval), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(ruled(true).withdraws(&job, "d"), None);
        assert!(ruled(false).withdraws(&job, "d").unwrap().contains(", not direct)"), "{tier:?}");
    }
}

#[test]
fn what_was_submitted_as_direct_says_who_can_approve_it_all_the_same() {
    for (tier, direct) in [(BlastRadius::High, None), (BlastRadius::Low, Some(false))] {
        let rules = rules(vec![Rule { direct, ..Rule::default() }]);
        let work = Work { dispatch_mode: Some(DispatchMode::Direct), ..work(Some(tier), &[]) };
        let origin = Origin::Submitted { by: "ann".to_owned(), revision: revision() };
        let mut job = Job { origin, ..committed(work) };
        let Decision::Waiting { reason, .. } = rules.decide(&job, "d".to_owned()) else { panic!("{tier:?}") };
        let approve = format!("`consign approve {}`", job.job_id);
        for words in ["somebody other than ann", approve.as_str(), "which no rule allows here"] {
            assert!(reason.contains(words), "{reason}");
        }
        job.apply(Event::Unapproved { reason, digest: "d".to_owned() }, Timestamp::UNIX_EPOCH).unwrap();
        let approval = rules.approve(&job, "ben", None, "d".to_owned(), Timestamp::UNIX_EPOCH).unwrap();
        assert!(approval.unwrap().rule.contains("somebody other than ann"));
    }
}
