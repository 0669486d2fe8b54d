//! What soaks have tried and found so far: a line for each run in `docs/soak/NAME.log`, which is committed.
//!
//! A soak is a number of rounds with a seed each, from the one behind the last on, so that a run goes on where the one
//! before it ended, whether it was stopped or not. Runs of one commit that follow each other are one line. Fields are
//! separated by tabs:
//!
//! ```text
//! 2026-11-22 00:10  4d592fa  seeds 40..52  cuts=82133 kills=20411  found nothing
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::results::{self, FOLDER};
use crate::workspace::{Result, Workspace, panics};

/// What a round prints before its counts, at the end of a line: `tried: cuts=812 kills=203`.
const TRIED: &str = "tried: ";

/// Lines of a round that failed that are shown.
const LAST: usize = 40;

/// How often each thing was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried(BTreeMap<String, u64>);

impl Tried {
    /// Adds what was tried elsewhere.
    pub fn add(&mut self, other: &Tried) {
        for (what, count) in &other.0 {
            *self.0.entry(what.clone()).or_default() += count;
        }
    }

    /// Each with its number.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(what, count)| (what.as_str(), *count))
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(|(what, count)| format!("{what}={count}")).collect();
        f.write_str(&words.join(" "))
    }
}

impl FromStr for Tried {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Tried, String> {
        let pair = |word: &str| {
            let (what, count) = word.split_once('=')?;
            Some((what.to_owned(), count.parse().ok()?))
        };
        let pairs =
            text.split_whitespace().map(|word| pair(word).ok_or_else(|| format!("what is {word:?}?")));
        pairs.collect::<std::result::Result<_, _>>().map(Tried)
    }
}

/// What came of a round.
pub struct Outcome {
    /// What it tried.
    pub tried: Tried,
    /// What is wrong, in a line.
    pub found: Option<String>,
}

/// A line of a log.
struct Run {
    date: String,
    commit: String,
    seeds: Range<u64>,
    tried: Tried,
    found: Option<String>,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run { date, commit, seeds, tried, found } = self;
        let found = found.as_deref().unwrap_or("nothing");
        write!(f, "{date}\t{commit}\tseeds {}..{}\t{tried}\tfound {found}", seeds.start, seeds.end)
    }
}

impl FromStr for Run {
    type Err = String;

    fn from_str(line: &str) -> std::result::Result<Run, String> {
        let bad = || format!("not a line of a soak's log: {line:?}");
        let fields: Vec<&str> = line.split('\t').collect();
        let [date, commit, seeds, tried, found] = fields[..] else { return Err(bad()) };
        let (first, end) = seeds.strip_prefix("seeds ").and_then(|s| s.split_once("..")).ok_or_else(bad)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| bad());
        let found = found.strip_prefix("found ").ok_or_else(bad)?;
        Ok(Run {
            date: date.to_owned(),
            commit: commit.to_owned(),
            seeds: number(first)?..number(end)?,
            tried: tried.parse()?,
            found: (found != "nothing").then(|| found.to_owned()),
        })
    }
}

/// The log of one soak.
pub struct Record {
    path: PathBuf,
    commit: String,
    runs: Vec<Run>,
}

impl Record {
    /// Reads it; it may be empty yet.
    pub fn open(workspace: &Workspace, name: &str) -> Result<Record> {
        let path = workspace.root().join(FOLDER).join(format!("{name}.log"));
        let text = if path.exists() { fs::read_to_string(&path)? } else { String::new() };
        let runs = text.lines().map(str::parse).collect::<std::result::Result<_, _>>()?;
        Ok(Record { path, commit: results::Run::begin()?.commit, runs })
    }

    /// The seed behind the last that was tried.
    pub fn next_seed(&self) -> u64 {
        self.runs.iter().map(|run| run.seeds.end).max().unwrap_or(0)
    }

    /// Notes what came of a seed.
    pub fn add(&mut self, seed: u64, outcome: &Outcome) -> Result<()> {
        let date = results::now()?;
        match self.runs.last_mut() {
            Some(last)
                if last.commit == self.commit
                    && last.seeds.end == seed
                    && last.found.is_none()
                    && outcome.found.is_none() =>
            {
                last.seeds.end += 1;
                last.tried.add(&outcome.tried);
                last.date = date;
            }
            _ => self.runs.push(Run {
                date,
                commit: self.commit.clone(),
                seeds: seed..seed + 1,
                tried: outcome.tried.clone(),
                found: outcome.found.clone(),
            }),
        }
        fs::create_dir_all(self.path.parent().ok_or("a log is in a folder")?)?;
        let lines: Vec<String> = self.runs.iter().map(|run| format!("{run}\n")).collect();
        Ok(fs::write(&self.path, lines.concat())?)
    }

    /// All runs together: how many seeds, what was tried, and what was found.
    pub fn total(&self) -> (u64, Tried, Vec<&str>) {
        let mut tried = Tried::default();
        for run in &self.runs {
            tried.add(&run.tried);
        }
        let seeds = self.runs.iter().map(|run| run.seeds.end - run.seeds.start).sum();
        (seeds, tried, self.runs.iter().filter_map(|run| run.found.as_deref()).collect())
    }
}

/// Names of the soaks that have a log.
pub fn names(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.root().join(FOLDER);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

/// How long a soak goes on, and where it begins.
#[derive(clap::Args)]
pub struct Span {
    /// Rounds are begun for so many minutes
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// One round with this seed, to see again what it found; nothing is noted
    #[arg(long)]
    seed: Option<u64>,
}

/// Plays rounds until the time is over or one finds something; notes each in the log of `name`.
pub fn play(
    workspace: &Workspace,
    name: &str,
    span: &Span,
    mut round: impl FnMut(u64) -> Result<Outcome>,
) -> Result<()> {
    let failed = |seed: u64, text: &str| format!("{name} found something with --seed {seed}: {text}").into();
    if let Some(seed) = span.seed {
        let outcome = round(seed)?;
        println!("seed {seed}: {}", outcome.tried);
        return outcome.found.map_or(Ok(()), |text| Err(failed(seed, &text)));
    }
    let mut record = Record::open(workspace, name)?;
    let (begun, most) = (Instant::now(), Duration::from_secs_f64(span.minutes * 60.0));
    loop {
        let seed = record.next_seed();
        let outcome = round(seed)?;
        record.add(seed, &outcome)?;
        println!("seed {seed}: {}", outcome.tried);
        if let Some(text) = outcome.found {
            return Err(failed(seed, &text));
        }
        if begun.elapsed() >= most {
            let (seeds, tried, _) = record.total();
            println!("{name}, in all: {seeds} seeds, {tried}");
            return Ok(());
        }
    }
}

/// A round that is a program: what it tried it says behind `tried: `. If it fails, its output is
/// shown, and the line that says why is what was found.
pub fn program(command: &mut Command) -> Result<Outcome> {
    let output = command.stdin(Stdio::null()).output()?;
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let mut tried = Tried::default();
    for line in text.lines().filter_map(|line| line.split_once(TRIED)) {
        tried.add(&line.1.parse()?);
    }
    if output.status.success() {
        return if tried == Tried::default() {
            Err("it ended well, but says nothing of what it tried".into())
        } else {
            Ok(Outcome { tried, found: None })
        };
    }
    let lines: Vec<&str> = text.lines().collect();
    println!("{}", lines[lines.len().saturating_sub(LAST)..].join("\n"));
    let told = panics(&text).next();
    let told = told.or_else(|| lines.iter().rev().find(|line| !line.trim().is_empty()).copied());
    let told = told.map_or_else(|| output.status.to_string(), |line| line.trim().replace('\t', " "));
    Ok(Outcome { tried, found: Some(told) })
}

#[cfg(test)]
mod tests {
    use super::{Run, Tried};

    #[test]
    fn a_line_is_what_it_was() {
        for line in [
            "2026-11-22 00:10\t4d592fa\tseeds 40..52\tcuts=82133 kills=20411\tfound nothing",
            "2026-11-22 00:10\t4d592fa-dirty\tseeds 0..1\t\tfound script 7: LSN 3 of 4",
        ] {
            assert_eq!(line.parse::<Run>().unwrap().to_string(), line);
        }
        assert!("2026-11-22\tseeds 4\t\t".parse::<Run>().is_err());
        assert!("cuts".parse::<Tried>().is_err());
    }
}
