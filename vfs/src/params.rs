//! URI parameters: SQLite's, ours, and no others.

use tideline_journal::{Code, Error, Result};

/// Parameters that SQLite itself reads, and what it takes.
const SQLITE: [&str; 9] = ["vfs", "mode", "cache", "psow", "nolock", "immutable", "modeof", "hexkey", "key"];

/// Parameters that are ours, but not built yet.
const LATER: [&str; 3] = ["at", "as_of", "branch"];

/// Values of `nolock` that SQLite takes for "no". Whatever else it is, it may be taken for "yes", or is a mistake.
const OFF: [&str; 5] = ["", "0", "no", "off", "false"];

/// True for a parameter of SQLite's own.
pub(crate) fn is_sqlites(name: &str) -> bool {
    SQLITE.contains(&name)
}

/// Checks the parameters of a database's URI, each a name and a value.
///
/// # Errors
/// `Argument` for the first that can't be honoured.
pub(crate) fn check<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
    for (name, value) in parameters {
        if LATER.contains(&name) {
            return Err(refuse(format!("URI parameter {name} isn't built yet; open the head, without it")));
        }
        if !SQLITE.contains(&name) {
            return Err(refuse(format!("URI parameter {name} is unknown; remove it, or mend its spelling")));
        }
        if name == "nolock" && !OFF.iter().any(|off| value.eq_ignore_ascii_case(off)) {
            return Err(refuse(
                "nolock=1 commits without locks, which can't be made safe here; remove it".to_owned(),
            ));
        }
    }
    Ok(())
}

fn refuse(text: String) -> Error {
    Error::new(Code::Argument, text)
}

#[cfg(test)]
mod tests {
    use super::check;

    fn error(name: &str, value: &str) -> String {
        check([(name, value)].into_iter()).unwrap_err().to_string()
    }

    #[test]
    fn unknown_ones_are_refused_by_name() {
        assert!(check([("vfs", "tideline"), ("cache", "shared"), ("nolock", "0")].into_iter()).is_ok());
        assert!(error("colour", "red").contains("colour"));
        assert!(error("at", "7").contains("isn't built yet"));
    }

    #[test]
    fn whatever_sqlite_may_take_for_nolock_is_refused() {
        for on in ["1", "on", "TRUE", "Yes", "2", "1x", "0x1", "-1", "extra", "maybe"] {
            assert!(error("nolock", on).contains("nolock"), "{on}");
        }
        for off in ["", "0", "off", "NO", "False"] {
            assert!(check([("nolock", off)].into_iter()).is_ok(), "{off}");
        }
    }
}
