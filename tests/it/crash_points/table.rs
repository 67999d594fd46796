//! The table of docs/reliability.md: what was lost, doubled and leaked by kills at each point.

use std::{collections::BTreeMap, fs, io::Write as _, path::Path};

use consign::fail_point::CHANGES;
use serde::{Deserialize, Serialize};

/// What came of kills at one point.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) kills: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) leaked: u64,
    /// What is wrong, in words.
    pub(super) violations: Vec<String>,
}

/// The rows of one batch, by point.
pub(super) type Rows = BTreeMap<String, Row>;

/// Every batch of one seed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Table {
    seed: u64,
    batches: BTreeMap<u64, Rows>,
}

impl Table {
    /// What another run left; an empty one where there is none. The seed must be the same.
    pub(super) fn read(file: &Path, seed: u64) -> Self {
        let Ok(text) = fs::read_to_string(file) else { return Self { seed, ..Self::default() } };
        let table: Self = serde_json::from_str(&text).unwrap();
        assert_eq!(table.seed, seed, "{} is of another seed", file.display());
        table
    }

    pub(super) fn write(&self, file: &Path) {
        let beside = file.with_extension("new");
        fs::write(&beside, serde_json::to_vec_pretty(self).unwrap()).unwrap();
        fs::rename(beside, file).unwrap();
    }

    pub(super) fn has(&self, batch: u64) -> bool {
        self.batches.contains_key(&batch)
    }

    pub(super) fn add(&mut self, batch: u64, rows: Rows) {
        self.batches.insert(batch, rows);
    }

    fn rows(&self) -> impl Iterator<Item = (&String, &Row)> {
        self.batches.values().flatten()
    }

    pub(super) fn kills(&self) -> u64 {
        self.rows().map(|(_, row)| row.kills).sum()
    }

    /// How many points the agent was killed at.
    pub(super) fn points(&self) -> usize {
        self.sums().values().filter(|row| row.kills > 0).count()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.rows()
            .flat_map(|(point, row)| row.violations.iter().map(move |one| format!("{point}: {one}")))
            .collect()
    }

    fn sums(&self) -> BTreeMap<&str, Row> {
        let mut sums: BTreeMap<&str, Row> = BTreeMap::new();
        for (point, row) in self.rows() {
            let sum = sums.entry(point).or_default();
            sum.kills += row.kills;
            sum.lost += row.lost;
            sum.doubled += row.doubled;
            sum.leaked += row.leaked;
        }
        sums
    }

    /// Prints it as Markdown.
    pub(super) fn print(&self) {
        let sums = self.sums();
        let mut output = std::io::stdout().lock();
        writeln!(output, "| point | kills | lost | doubled | leaked |\n|---|---:|---:|---:|---:|").unwrap();
        let points =
            CHANGES.iter().flat_map(|change| [format!("before {change}"), format!("after {change}")]);
        let mut all = Row::default();
        for point in points.chain([String::new()]) {
            let Some(Row { kills, lost, doubled, leaked, .. }) = sums.get(point.as_str()) else { continue };
            writeln!(output, "| {point} | {kills} | {lost} | {doubled} | {leaked} |").unwrap();
            all.kills += kills;
            all.lost += lost;
            all.doubled += doubled;
            all.leaked += leaked;
        }
        let Row { kills, lost, doubled, leaked, .. } = all;
        writeln!(output, "| all | {kills} | {lost} | {doubled} | {leaked} |").unwrap();
    }
}
