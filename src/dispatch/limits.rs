//! The most that an action may ask of a node: `[shapes]` and its rules.

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    action::{Driver, Resources},
    approval::fits,
    ids::FormulaName,
};

/// `[shapes]`: what every formula may ask for, and rules for some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// CPU share in MHz.
    pub cpu: u64,
    /// Whole cores.
    pub cores: u64,
    /// Memory, for `memory` and `memory_max` alike.
    #[schemars(with = "String")]
    pub memory: ByteSize,
    /// Devices.
    pub gpus: u64,
    /// The devices; `*` stands for any text.
    pub devices: Vec<String>,
    /// Task drivers besides the configured one.
    pub drivers: Vec<Driver>,
    /// Whether constraints may be given.
    pub constraints: bool,
    /// Other limits for some formulas; of those that match and name a key, the last decides.
    #[serde(default)]
    pub rule: Vec<Rule>,
}

/// `[[shapes.rule]]`: other limits for the formulas that it matches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The formulas; `*` stands for any text.
    pub formula: String,
    /// See [`Limits`].
    pub cpu: Option<u64>,
    /// See [`Limits`].
    pub cores: Option<u64>,
    /// See [`Limits`].
    #[schemars(with = "Option<String>")]
    pub memory: Option<ByteSize>,
    /// See [`Limits`].
    pub gpus: Option<u64>,
    /// See [`Limits`].
    pub devices: Option<Vec<String>>,
    /// See [`Limits`].
    pub drivers: Option<Vec<Driver>>,
    /// See [`Limits`].
    pub constraints: Option<bool>,
}

/// The limits of one formula.
#[derive(Debug, Clone, Copy)]
pub struct OfFormula<'limits> {
    limits: &'limits Limits,
    formula: &'limits FormulaName,
}

impl Limits {
    /// The limits of `formula`.
    #[must_use]
    pub fn of<'limits>(&'limits self, formula: &'limits FormulaName) -> OfFormula<'limits> {
        OfFormula { limits: self, formula }
    }
}

impl<'limits> OfFormula<'limits> {
    /// One limit, and the section of the configuration that sets it.
    fn limit<T>(self, general: T, own: impl Fn(&'limits Rule) -> Option<T>) -> (T, String) {
        let rules = self.limits.rule.iter().filter(|rule| fits(&rule.formula, self.formula.as_str()));
        match rules.filter_map(|rule| Some((own(rule)?, rule))).next_back() {
            Some((value, rule)) => (value, format!("[[shapes.rule]] for formula {:?}", rule.formula)),
            None => (general, "[shapes]".to_owned()),
        }
    }

    /// The key of the action that asks for too much, and what is allowed by which rule, in a sentence.
    pub fn check(
        self,
        asked: &Resources,
        driver: Option<Driver>,
        configured: Driver,
        constraints: bool,
    ) -> Result<(), (&'static str, String)> {
        let Limits { cpu, cores, memory, gpus, devices, drivers, constraints: may_constrain, .. } =
            self.limits;
        let numbers = [
            ("cpu", "MHz", asked.cpu, self.limit(*cpu, |rule| rule.cpu)),
            ("cores", "cores", asked.cores, self.limit(*cores, |rule| rule.cores)),
            ("gpus", "devices", asked.gpus, self.limit(*gpus, |rule| rule.gpus)),
        ];
        for (key, unit, asked, (most, place)) in numbers {
            if let Some(asked) = asked.filter(|asked| *asked > most) {
                return Err(self.refusal(key, &format!("{asked} {unit}"), &most.to_string(), &place));
            }
        }
        let (most, place) = self.limit(*memory, |rule| rule.memory);
        for (key, bytes) in [("memory", asked.memory), ("memory_max", asked.memory_max)] {
            if let Some(bytes) = bytes.filter(|bytes| *bytes > most.as_u64()) {
                return Err(self.refusal(key, &ByteSize::b(bytes).to_string(), &most.to_string(), &place));
            }
        }
        if let Some(device) = &asked.device {
            let (patterns, place) = self.limit(devices, |rule| rule.devices.as_ref());
            if !patterns.iter().any(|pattern| fits(pattern, device)) {
                return Err(self.refusal("device", device, &list(patterns), &place));
            }
        }
        if let Some(driver) = driver {
            let (allowed, place) = self.limit(drivers, |rule| rule.drivers.as_ref());
            if !allowed.contains(&driver) {
                let names = std::iter::once(&configured).chain(allowed);
                let names: Vec<String> = names.map(|driver| driver.name().to_owned()).collect();
                return Err(self.refusal("driver", driver.name(), &list(&names), &place));
            }
        }
        let (may_constrain, place) = self.limit(*may_constrain, |rule| rule.constraints);
        if constraints && !may_constrain {
            return Err(self.refusal("constraints", "some", "none", &place));
        }
        Ok(())
    }

    fn refusal(self, key: &'static str, asked: &str, allowed: &str, place: &str) -> (&'static str, String) {
        let top = if matches!(key, "driver" | "constraints") { key } else { "resources" };
        (
            top,
            format!("it asks for {key}: {asked}; formula {} may have {allowed}, says {place}", self.formula),
        )
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
