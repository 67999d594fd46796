//! The figures that have an aim, as bars: how much of it each takes.

use std::fmt::Write as _;

use super::figure::Figure;

const ROW: usize = 26;
const TOP: usize = 40;
const LEFT: f64 = 400.0;
/// How wide a bar is that takes all of its aim.
const WHOLE: f64 = 300.0;
/// A bar that takes more is cut here.
const MOST: f64 = 1.5;

pub(super) fn draw(figures: &[Figure]) -> String {
    let rows: Vec<(&Figure, f64)> =
        figures.iter().filter_map(|figure| Some((figure, figure.share()?))).collect();
    let (width, height) = (LEFT + WHOLE * MOST + 100.0, TOP + ROW * rows.len() + 10);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let aim = LEFT + WHOLE;
    writeln!(svg, "<text x=\"{aim}\" y=\"20\" text-anchor=\"middle\">the aim</text>").unwrap();
    for (number, (figure, share)) in rows.iter().enumerate() {
        let y = TOP + ROW * number;
        let colour = if figure.is_missed() { "#b3261e" } else { "#2e7d32" };
        let bar = WHOLE * share.min(MOST);
        let baseline = y + 14;
        let after = LEFT + bar + 6.0;
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{baseline}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{bar:.1}\" height=\"18\" fill=\"{colour}\"/>\n\
             <text x=\"{after:.1}\" y=\"{baseline}\">{}</text>",
            LEFT - 8.0,
            figure.what,
            figure.text()
        )
        .unwrap();
    }
    writeln!(svg, "<line x1=\"{aim}\" y1=\"26\" x2=\"{aim}\" y2=\"{height}\" stroke=\"#202124\"/>\n</svg>")
        .unwrap();
    svg
}
