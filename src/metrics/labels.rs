//! The labels, all of which have few values.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, PoisonError},
};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::{
    ids::FormulaName,
    outcome::{Cause, Outcome},
};

/// How many formulas have a label of their own in one run of the agent; a series for each outcome and cause,
/// and a histogram for each outcome, hangs on every one.
pub const FORMULA_LIMIT: usize = 100;

/// The label of work whose formula is none of the ops repo's: dispatched by hand, or rejected because there is
/// no such formula. No formula's name begins with `_`.
const NONE: &str = "_none";
/// The label of all formulas beyond [`FORMULA_LIMIT`].
const OTHER: &str = "_other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByPhase {
    pub(super) phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct BySubject {
    pub(super) subject: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByOutcome {
    pub(super) outcome: Word<Outcome>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Ended {
    pub(super) formula: String,
    pub(super) outcome: Word<Outcome>,
    pub(super) cause: Word<Cause>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Ran {
    pub(super) formula: String,
    pub(super) outcome: Word<Outcome>,
}

/// A label value that is one of a few words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Word<T>(T);

impl<T> From<T> for Word<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: fmt::Display> EncodeLabelValue for Word<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.0.to_string().encode(encoder)
    }
}

/// The formulas that have a label of their own, first come first served.
#[derive(Debug, Default)]
pub(super) struct Formulas {
    known: Mutex<BTreeSet<FormulaName>>,
}

impl Formulas {
    pub(super) fn label(&self, formula: Option<&FormulaName>, cause: Cause) -> String {
        let Some(formula) = formula.filter(|_| cause != Cause::UnknownFormula) else {
            return NONE.to_owned();
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(formula) {
            if known.len() >= FORMULA_LIMIT {
                return OTHER.to_owned();
            }
            known.insert(formula.clone());
        }
        formula.to_string()
    }
}
