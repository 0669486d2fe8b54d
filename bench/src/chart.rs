//! The ratios as a picture: a bar for each row of the table, on a logarithmic scale, from 1 to the right where Tideline
//! is better and to the left where stock WAL is. Everything comes from the report's JSON lines.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// In pixels, as all below: where the scale begins, and the margin.
const LEFT: f64 = 470.0;
const SCALE: f64 = 480.0;
/// For a bar's number, at either end of the scale.
const NUMBER: f64 = 60.0;
const TOP: f64 = 84.0;
const ROW: f64 = 32.0;
const BAR: f64 = 16.0;
const BOTTOM: f64 = 52.0;
/// Characters of a label's line that surely fit.
const LINE: usize = 64;
/// Beyond these a bar ends at the scale's end, and only its number is right.
const SMALLEST: f64 = 0.02;
const LARGEST: f64 = 50.0;

const BETTER: &str = "#2c7fa8";
const WORSE: &str = "#d9772b";
const INK: &str = "#222222";
const FAINT: &str = "#d8d8d8";

struct Bar {
    title: String,
    median: f64,
    min: f64,
    max: f64,
}

/// Reads what `--json` wrote.
pub fn read(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display())))
        .collect()
}

/// Draws the rows among `lines`.
pub fn write(path: &Path, lines: &[Value]) -> Result<()> {
    fs::write(path, draw(lines)?).with_context(|| format!("write {}", path.display()))
}

fn draw(lines: &[Value]) -> Result<String> {
    let bars: Vec<Bar> = lines.iter().filter_map(bar).collect();
    ensure!(!bars.is_empty(), "there is no ratio of stock WAL and Tideline to draw");
    let axis = Axis::around(&bars);
    let (width, bottom) = (LEFT + SCALE + 2.0 * NUMBER, TOP + ROW * bars.len() as f64);
    let height = bottom + BOTTOM;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"{INK}\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let _ = writeln!(
        svg,
        "<text x=\"16\" y=\"28\" font-size=\"17\" font-weight=\"bold\">stock WAL ÷ Tideline</text>\n\
         <text x=\"16\" y=\"48\">Right of 1.0, Tideline is better; left of it, stock WAL. Logarithmic; the thin line \
         spans the rounds.</text>"
    );
    for tick in axis.ticks() {
        let x = axis.x(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"{FAINT}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>",
            TOP - 8.0
        );
    }
    for (index, bar) in bars.iter().enumerate() {
        draw_bar(&mut svg, &axis, bar, TOP + ROW * (index as f64 + 0.5));
    }
    let one = axis.x(1.0);
    let _ = writeln!(
        svg,
        "<line x1=\"{one:.1}\" y1=\"{:.1}\" x2=\"{one:.1}\" y2=\"{:.1}\" stroke=\"{INK}\" stroke-width=\"1.5\"/>\
         <text x=\"{one:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-weight=\"bold\">1.0</text>",
        TOP - 4.0,
        bottom + 4.0,
        TOP - 8.0
    );
    let _ = writeln!(
        svg,
        "<text x=\"16\" y=\"{:.1}\" fill=\"#666666\">{}</text>\n</svg>",
        height - 18.0,
        escape(&note(lines))
    );
    Ok(svg)
}

fn bar(line: &Value) -> Option<Bar> {
    let gain = line.get("stock_over_tideline").filter(|_| line["type"] == "row")?;
    let number = |name: &str| gain[name].as_f64();
    Some(Bar {
        title: line["title"].as_str()?.replace('`', ""),
        median: number("median")?,
        min: number("min")?,
        max: number("max")?,
    })
}

fn draw_bar(svg: &mut String, axis: &Axis, bar: &Bar, middle: f64) {
    let lines = wrap(&bar.title);
    for (index, line) in lines.iter().enumerate() {
        let y = middle + 4.0 + 13.0 * (index as f64 - (lines.len() - 1) as f64 / 2.0);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            escape(line)
        );
    }
    let (one, end) = (axis.x(1.0), axis.x(bar.median));
    let better = bar.median >= 1.0;
    let (low, high) = (axis.x(bar.min), axis.x(bar.max));
    let _ = writeln!(
        svg,
        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{}\"/>\
         <line x1=\"{low:.1}\" y1=\"{middle:.1}\" x2=\"{high:.1}\" y2=\"{middle:.1}\" stroke=\"{INK}\"/>",
        one.min(end),
        middle - BAR / 2.0,
        (end - one).abs().max(1.0),
        if better { BETTER } else { WORSE }
    );
    let (x, anchor) = if better { (end.max(high) + 5.0, "start") } else { (end.min(low) - 5.0, "end") };
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" font-weight=\"bold\">{}</text>",
        middle + 4.0,
        ratio(bar.median)
    );
}

/// Two digits that count, or a whole number.
fn ratio(value: f64) -> String {
    match value {
        _ if value >= 99.5 => format!("{value:.0}"),
        _ if value >= 9.95 => format!("{value:.1}"),
        _ if value >= 0.0995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A logarithmic scale.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    /// As wide as the bars need, with something on both sides of 1.
    fn around(bars: &[Bar]) -> Self {
        let from = bars.iter().map(|bar| bar.min).fold(0.5, f64::min);
        let to = bars.iter().map(|bar| bar.max).fold(2.0, f64::max);
        Self { from: from.max(SMALLEST), to: to.min(LARGEST) }
    }

    fn x(&self, value: f64) -> f64 {
        let part = (value.clamp(self.from, self.to) / self.from).ln() / (self.to / self.from).ln();
        LEFT + NUMBER + SCALE * part
    }

    /// 1, 2 and 5 at every power of ten, without 1 itself.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        let all = [0.02, 0.05, 0.1, 0.2, 0.5, 2.0, 5.0, 10.0, 20.0, 50.0];
        all.into_iter().filter(|tick| (self.from..=self.to).contains(tick))
    }
}

/// What was measured on what.
fn note(lines: &[Value]) -> String {
    let Some(header) = lines.iter().find(|line| line["type"] == "header") else {
        return String::new();
    };
    let text = |name: &str| header[name].as_str().unwrap_or_default();
    let debug = if header["debug_build"] == true { ", a debug build: the figures mean nothing" } else { "" };
    let commit = header["commit"].as_str().map_or(String::new(), |commit| format!(" ({commit})"));
    format!(
        "Tideline {}{commit}, SQLite {}, {}, scale {}, {} UTC{debug}",
        text("tideline"),
        text("sqlite"),
        text("cpu"),
        header["scale"]["name"].as_str().unwrap_or_default(),
        text("date")
    )
}

/// Lines of about equal length, as few as fit.
fn wrap(title: &str) -> Vec<String> {
    let length = title.chars().count();
    let aim = length.div_ceil(length.div_ceil(LINE).max(1));
    let mut lines = vec![String::new()];
    for word in title.split_whitespace() {
        let line = lines.last_mut().expect("there is a line");
        let (now, more) = (line.chars().count(), word.chars().count());
        if now > 0 && (now >= aim || now + 1 + more > LINE) {
            lines.push(word.to_owned());
        } else {
            *line += if now > 0 { " " } else { "" };
            *line += word;
        }
    }
    lines
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(title: &str, median: f64) -> Value {
        json!({"type": "row", "title": title, "stock_over_tideline": {"median": median, "min": median, "max": median}})
    }

    #[test]
    fn each_row_with_a_ratio_is_a_bar_and_the_side_has_its_colour() {
        let svg =
            draw(&[row("a < b", 4.0), row("c", 0.25), json!({"type": "row", "title": "no ratio"})]).unwrap();
        assert_eq!((svg.matches(BETTER).count(), svg.matches(WORSE).count()), (1, 1));
        assert!(svg.contains("a &lt; b") && svg.contains("4.00") && svg.contains("0.25"));
        assert!(!svg.contains("no ratio"));
        assert!(draw(&[]).is_err());
    }

    #[test]
    fn a_scale_is_logarithmic_and_has_ends() {
        let axis = Axis { from: 0.25, to: 4.0 };
        assert_eq!(axis.x(1.0), LEFT + NUMBER + SCALE / 2.0);
        assert_eq!(axis.x(1e9), LEFT + NUMBER + SCALE);
        assert_eq!(axis.x(0.0), LEFT + NUMBER);
    }

    #[test]
    fn long_titles_are_wrapped() {
        let lines = wrap(&"word ".repeat(20));
        assert!(lines.len() == 2 && lines.iter().all(|line| line.len() <= LINE));
        assert_eq!(wrap("short"), ["short"]);
    }
}
