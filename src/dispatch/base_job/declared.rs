//! What a base job says of itself that a dispatch depends on.

use std::collections::{BTreeMap, BTreeSet};

use hcl::{Body, Expression};

use super::{META_KEYS, attribute, blocks};
use crate::ids::{BotName, FormulaName, InvalidName};

/// The dispatch meta that carries the name of the bot that a run is.
pub const BOT_KEY: &str = "bot";

/// What a base job says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// The dispatch meta that it declares beyond [`META_KEYS`]: an argument of such a name travels as this
    /// meta too.
    pub meta: BTreeSet<String>,
    /// Those of them that no dispatch may leave out.
    pub required: BTreeSet<String>,
}

/// A bot that has no legal name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; the argument `bot` names it, and without one the formula")]
pub struct InvalidBot(#[from] pub InvalidName);

impl Declared {
    pub(super) fn read(body: &Body) -> Self {
        let mut declared = Self::default();
        for job in blocks(body, "job") {
            for parameterized in blocks(job.body(), "parameterized") {
                declared.required.extend(keys(parameterized.body(), "meta_required"));
                declared.meta.extend(keys(parameterized.body(), "meta_optional"));
            }
        }
        declared.meta.extend(declared.required.iter().cloned());
        declared
    }

    /// The bot that a run of `formula` is: the argument `bot`, or else the formula's name. None where the
    /// argument is empty, or where the base job has no bots.
    pub fn bot(
        &self,
        formula: &FormulaName,
        args: &BTreeMap<String, String>,
    ) -> Result<Option<BotName>, InvalidBot> {
        if !self.meta.contains(BOT_KEY) {
            return Ok(None);
        }
        match args.get(BOT_KEY).map_or(formula.as_str(), String::as_str) {
            "" => Ok(None),
            name => Ok(Some(BotName::parse(name)?)),
        }
    }
}

fn keys(block: &Body, key: &str) -> Vec<String> {
    let Some(Expression::Array(keys)) = attribute(block, key) else { return Vec::new() };
    let texts = keys.iter().filter_map(|key| match key {
        Expression::String(text) => Some(text.clone()),
        _ => None,
    });
    texts.filter(|key| !META_KEYS.contains(&key.as_str())).collect()
}
