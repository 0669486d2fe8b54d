//! What some black-box tests need, and are left out without.

use std::path::PathBuf;
use std::process::Command;

use crate::tools;
use crate::workspace::{Result, Workspace};

/// A Python with one module.
pub struct Optional {
    module: &'static str,
    /// Which tests.
    tests: &'static str,
    /// Where the tests look for the Python that has it.
    variable: &'static str,
    /// That Python, or why there is none.
    python: Result<PathBuf>,
}

/// All of them, installed where the system allows it.
pub fn all(workspace: &Workspace) -> [Optional; 2] {
    [
        Optional {
            module: "apsw",
            tests: "in apsw",
            variable: "TIDELINE_APSW_PYTHON",
            python: tools::apsw(workspace),
        },
        Optional {
            module: "moto",
            tests: "of remotes in S3",
            variable: "TIDELINE_MOTO_PYTHON",
            python: tools::moto(workspace),
        },
    ]
}

impl Optional {
    /// Whether it is here, in a line.
    pub fn line(&self) -> String {
        match &self.python {
            Ok(_) => format!("{} is here", self.module),
            Err(error) => format!("no {}: {error}", self.module),
        }
    }

    /// Lets tests find it.
    pub fn give(&self, tests: &mut Command) {
        if let Ok(python) = &self.python {
            tests.env(self.variable, python);
        }
    }

    /// What is left out because it isn't here, as a closing line.
    pub fn left_out(&self) -> Option<String> {
        let error = self.python.as_ref().err()?;
        Some(format!("SKIPPED: tests {}: {error}", self.tests))
    }
}
