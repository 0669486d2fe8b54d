//! Prints what inputs stand for, and what each did: `explain open|receive FILE...`.

use std::process::ExitCode;

use tideline_fuzz::{open, receive};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let target = arguments.next();
    let (describe, run): (fn(&[u8]) -> String, fn(&[u8]) -> String) = match target.as_deref() {
        Some("open") => (open::describe, open::run),
        Some("receive") => (receive::describe, receive::run),
        _ => {
            eprintln!("give a target, open or receive, and files with inputs");
            return ExitCode::FAILURE;
        }
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
