//! The figures as a table, as JSON and as the page docs/benchmarks.md.

use std::{fs, path::Path};

use serde_json::{Map, Value};

use super::{figure::Figure, plot};

/// Between these two lines of the page stands what was measured.
const MARKS: [&str; 2] = ["<!-- measured -->\n", "<!-- end -->\n"];

/// A Markdown table, which a terminal shows well enough.
pub(super) fn table(figures: &[Figure]) -> String {
    let heading = ["figure", "measured", "without consign", "aim"].map(str::to_owned);
    let mut rows = vec![heading];
    rows.extend(figures.iter().map(|figure| {
        let aim = figure.aim.map(|aim| {
            let verdict = if figure.is_missed() { "**missed**" } else { "met" };
            format!("{aim}, {verdict}")
        });
        [figure.what.clone(), figure.text(), figure.floor.clone(), aim.unwrap_or_default()]
    }));
    let widths: [usize; 4] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    rows.insert(1, widths.map(|width| "-".repeat(width)));
    let line = |row: &[String; 4]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("| {cell:width$} "));
        format!("{}|\n", cells.collect::<String>())
    };
    rows.iter().map(line).collect()
}

pub(super) fn json(machine: &str, figures: &[Figure]) -> String {
    let mut object = Map::from_iter([("machine".to_owned(), Value::from(machine))]);
    object.extend(figures.iter().map(|figure| (figure.key.clone(), Value::from(figure.value))));
    format!("{:#}\n", Value::Object(object))
}

/// Writes what was measured into `benchmarks.md` and `benchmarks.svg` of the folder.
pub(super) fn publish(folder: &Path, machine: &str, figures: &[Figure]) {
    let page = folder.join("benchmarks.md");
    let text = fs::read_to_string(&page).unwrap();
    let [begin, end] = MARKS;
    let (before, rest) = text.split_once(begin).expect("the page has its marks");
    let (_, after) = rest.split_once(end).expect("the page has its marks");
    let plot = "![Each figure that has an aim, as the share of it that it takes](benchmarks.svg)";
    let measured = format!("Measured on {machine}.\n\n{plot}\n\n{}", table(figures));
    fs::write(page, format!("{before}{begin}\n{measured}\n{end}{after}")).unwrap();
    fs::write(folder.join("benchmarks.svg"), plot::draw(figures)).unwrap();
}
