//! Prints what inputs stand for, and what each did: `explain TARGET FILE...`.

use std::process::ExitCode;

use tideline_fuzz::{functions, index, open, parameters, receive, recover};

/// What says what an input stands for, and what runs it.
type Target = (&'static str, fn(&[u8]) -> String, fn(&[u8]) -> String);

const TARGETS: [Target; 6] = [
    ("open", open::describe, open::run),
    ("receive", receive::describe, receive::run),
    ("recover", recover::describe, recover::run),
    ("index", index::describe, index::run),
    ("parameters", parameters::describe, parameters::run),
    ("functions", functions::describe, functions::run),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next();
    let Some((_, describe, run)) = TARGETS.iter().find(|target| Some(target.0) == name.as_deref()) else {
        let names = TARGETS.map(|target| target.0);
        eprintln!("give a target ({}) and files with inputs", names.join(", "));
        return ExitCode::FAILURE;
    };
    for path in arguments {
        let input = match std::fs::read(&path) {
            Ok(input) => input,
            Err(error) => {
                eprintln!("{path}: {error}");
                return ExitCode::FAILURE;
            }
        };
        println!("{path}\n{}", describe(&input));
        println!("{}\n", run(&input));
    }
    ExitCode::SUCCESS
}
