//! When a schedule is due: cron expressions in a time zone.
//!
//! Where the clock skips a time of day, as it does once a year, a fixed one is due right after the gap; where a
//! time of day comes twice, a fixed one is due the first time. One with a wildcard in minute or hour follows the
//! clock.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of times that passed while the agent was away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// They run together, once.
    #[default]
    Once,
    /// They are left out, and stand in the ledger.
    Skip,
}

/// How late a time may be told and still counts as kept.
const LATE: SignedDuration = SignedDuration::from_mins(1);
/// How far the clock may go back without a time being told again.
const SET_BACK: SignedDuration = SignedDuration::from_hours(3);
/// How many missed times are counted.
const COUNTED: usize = 1000;

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    missed: Missed,
}

/// A time that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The latest one.
    pub at: Timestamp,
    /// How many there were since the one told before, up to a thousand.
    pub count: usize,
    /// Whether it was missed and is to be left out.
    pub left_out: bool,
}

impl Schedule {
    /// Reads five fields (minute, hour, day of month, month, day of week), or a word such as `@daily`, and the
    /// IANA name of a time zone.
    pub fn new(cron: &str, zone: &str, missed: Missed) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let parsed = parser.parse(cron).map_err(|error| {
            format!(
                "`cron`: {cron:?}: {error}; write minute, hour, day, month and weekday, such as \"0 3 * * 0\""
            )
        })?;
        let zone = TimeZone::get(zone).map_err(|_| {
            format!("`time_zone`: {zone:?} is not known: write a name such as \"Europe/Berlin\", or \"UTC\"")
        })?;
        let schedule = Self { cron: parsed, zone, missed };
        match schedule.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(format!("`cron`: {cron:?} never comes")),
        }
    }

    /// The first time after `after`.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&after, false).ok().map(|at| at.timestamp())
    }

    /// What is due by `now`, where times up to `told` were told.
    #[must_use]
    pub fn due(&self, told: Timestamp, now: Timestamp) -> Option<Due> {
        let mut due: Option<Due> = None;
        let mut after = told;
        while let Some(at) = self.next(after).filter(|at| *at <= now) {
            let count = due.map_or(1, |due| due.count + 1);
            due = Some(Due { at, count, left_out: false });
            // What is too much to count is passed over; the latest time is found from shortly before now.
            let near = now.checked_sub(SignedDuration::from_hours(24)).unwrap_or(at);
            let skip = count >= COUNTED && at < near && self.next(near).is_some_and(|at| at <= now);
            after = if skip { near } else { at };
        }
        due.map(|due| Due {
            count: due.count.min(COUNTED),
            left_out: self.missed == Missed::Skip && now.duration_since(due.at) > LATE,
            ..due
        })
    }

    /// Up to where times count as told, where the mark on record says `told`: never in the future by more than
    /// a clock is set back by.
    #[must_use]
    pub fn told(mark: Option<&str>, now: Timestamp) -> Timestamp {
        let told = mark.and_then(|mark| mark.parse::<Timestamp>().ok());
        told.filter(|told| told.duration_since(now) <= SET_BACK).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn berlin(cron: &str) -> Schedule {
        Schedule::new(cron, "Europe/Berlin", Missed::Once).unwrap()
    }

    fn nexts(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
        let mut after = at(after);
        let mut found = Vec::new();
        for _ in 0..count {
            after = schedule.next(after).unwrap();
            found.push(after.to_string());
        }
        found
    }

    #[test]
    fn a_time_in_the_gap_comes_right_after_it_and_one_that_comes_twice_once() {
        // On 2027-03-28 Berlin goes from 2:00 to 3:00, on 2027-10-31 from 3:00 back to 2:00.
        let half_past_two = berlin("30 2 * * *");
        assert_eq!(
            nexts(&half_past_two, "2027-03-27T00:00:00Z", 3),
            ["2027-03-27T01:30:00Z", "2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"]
        );
        assert_eq!(
            nexts(&half_past_two, "2027-10-30T00:00:00Z", 3),
            ["2027-10-30T00:30:00Z", "2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"]
        );
        let hourly = nexts(&berlin("0 * * * *"), "2027-10-30T23:30:00Z", 4);
        assert_eq!(
            hourly,
            ["2027-10-31T00:00:00Z", "2027-10-31T01:00:00Z", "2027-10-31T02:00:00Z", "2027-10-31T03:00:00Z"]
        );
    }

    #[test]
    fn missed_times_come_once_or_are_left_out() {
        let daily = Schedule::new("0 3 * * *", "UTC", Missed::Skip).unwrap();
        let told = at("2026-11-01T03:00:00Z");
        assert_eq!(daily.due(told, at("2026-11-02T02:59:59Z")), None);
        let punctual = daily.due(told, at("2026-11-02T03:00:30Z")).unwrap();
        assert_eq!((punctual.at, punctual.count, punctual.left_out), (at("2026-11-02T03:00:00Z"), 1, false));
        let late = daily.due(told, at("2026-11-05T12:00:00Z")).unwrap();
        assert_eq!((late.at, late.count, late.left_out), (at("2026-11-05T03:00:00Z"), 4, true));
        let once = Schedule::new("0 3 * * *", "UTC", Missed::Once).unwrap();
        assert!(!once.due(told, at("2026-11-05T12:00:00Z")).unwrap().left_out);
        assert_eq!(once.due(late.at, at("2026-11-05T12:00:00Z")), None, "told is told");
        let minutes = Schedule::new("* * * * *", "UTC", Missed::Once).unwrap();
        let year = minutes.due(told, at("2027-11-01T03:00:30Z")).unwrap();
        assert_eq!((year.at, year.count), (at("2027-11-01T03:00:00Z"), COUNTED));
    }

    #[test]
    fn a_clock_set_back_tells_nothing_twice_and_a_wrong_one_does_not_stop_it() {
        let now = at("2026-11-02T02:30:00Z");
        let daily = Schedule::new("0 3 * * *", "UTC", Missed::Once).unwrap();
        let told = Schedule::told(Some("2026-11-02T03:00:00Z"), now);
        assert_eq!(daily.due(told, at("2026-11-02T03:10:00Z")), None);
        let told = Schedule::told(Some("2036-11-02T03:00:00Z"), now);
        assert!(daily.due(told, at("2026-11-02T03:10:00Z")).is_some());
        assert_eq!(Schedule::told(None, now), now, "nothing is missed from before the first start");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for (cron, zone) in [
            ("", "UTC"),
            ("* * * *", "UTC"),
            ("* * * * * *", "UTC"),
            ("60 * * * *", "UTC"),
            ("0 0 30 2 *", "UTC"),
            ("0 0 * * *", "Europe/Atlantis"),
        ] {
            assert!(Schedule::new(cron, zone, Missed::Once).is_err(), "{cron} {zone}");
        }
        for cron in ["@daily", "*/5 * * * *", "0 3 * * SUN", "0 3 L * *"] {
            assert!(Schedule::new(cron, "Pacific/Auckland", Missed::Once).is_ok(), "{cron}");
        }
    }
}
