//! `cargo xtask soak fuzz`: one fuzz target after the other, some minutes for each seed.
//!
//! What they find goes into `fuzz/corpus` and stays there, so that each round begins with what those before it reached.

use std::process::{Command, Stdio};
use std::time::Instant;

use super::record::{self, Outcome, Span};
use crate::fuzz;
use crate::workspace::{Result, Workspace, panics};

/// How long each target runs in a round, in seconds.
const ROUND: u32 = 120;

/// What libFuzzer prints before the number of inputs that it has tried.
const EXECUTIONS: &str = "stat::number_of_executed_units:";

/// Plays rounds.
pub fn run(workspace: &Workspace, span: &Span) -> Result<()> {
    fuzz::tools()?;
    let targets = fuzz::build(workspace)?;
    record::play(workspace, "fuzz", span, |seed| {
        let begun = Instant::now();
        let mut tried = Vec::new();
        let mut found = None;
        for target in &targets {
            let mut command = fuzz::target_for(workspace, target, ROUND)?;
            // Of 0 it makes a random one.
            command.arg(format!("-seed={}", seed % u64::from(u32::MAX) + 1)).arg("-print_final_stats=1");
            let (executions, crash) = play(&mut command)?;
            tried.push(format!("executions_{target}={executions}"));
            if let Some(text) = crash {
                found = Some(format!("{target}: {text}"));
                break;
            }
        }
        tried.push(format!("seconds={}", begun.elapsed().as_secs()));
        let tried = tried.join(" ");
        println!("tried: {tried}");
        Ok(Outcome { tried: tried.parse()?, found })
    })
}

/// Runs a target. How many inputs it tried, and what it says where one of them crashed.
fn play(command: &mut Command) -> Result<(u64, Option<String>)> {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let executions = executions(&text);
    if output.status.success() {
        let executions = executions.ok_or("it ended well, but says nothing of what it tried")?;
        return Ok((executions, None));
    }
    println!("{text}");
    Ok((executions.unwrap_or(0), Some(crash(&text))))
}

fn executions(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(EXECUTIONS)?.trim().parse().ok())
}

/// Why it crashed, and the name of the input that it left.
fn crash(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let summarises = |line: &&str| line.starts_with("memory allocation of") || line.starts_with("SUMMARY:");
    let summary = || lines.iter().copied().find(summarises);
    let last = || lines.iter().copied().rev().find(|line| !line.trim().is_empty());
    let told = panics(text)
        .next()
        .or_else(summary)
        .or_else(last)
        .map_or("it failed, and says nothing", |line| line.trim());
    let input = lines.iter().find_map(|line| line.split_once("Test unit written to ")?.1.rsplit('/').next());
    let told = told.replace('\t', " ");
    input.map_or_else(|| told.clone(), |input| format!("{told} ({input})"))
}

#[cfg(test)]
mod tests {
    use super::{crash, executions};

    const CRASHED: &str = "#12 NEW cov: 3\n\
        thread '<unnamed>' (7) panicked at src/open.rs:85:9:\n\
        LSN 7 is lost\n\
        ==7== ERROR: libFuzzer: deadly signal\n\
        SUMMARY: libFuzzer: deadly signal\n\
        artifact_prefix='/a/b/'; Test unit written to /a/b/crash-0a1b\n\
        stat::number_of_executed_units: 4812\n";

    #[test]
    fn what_libfuzzer_says_is_read() {
        assert_eq!(executions(CRASHED), Some(4812));
        assert_eq!(executions("Done 3 runs"), None);
        assert_eq!(crash(CRASHED), "LSN 7 is lost (crash-0a1b)");
        let memory = "memory allocation of 88 bytes failed\nSUMMARY: libFuzzer: deadly signal\n\n";
        assert_eq!(crash(memory), "memory allocation of 88 bytes failed");
        assert_eq!(crash("error: no such target\n"), "error: no such target");
    }
}
