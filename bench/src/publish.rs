//! Writes a report into a document, between two marker comments, and leaves the rest of the document as it is.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Replaces the section's contents; a section that isn't there is added at the end, a document is made.
pub fn write(path: &Path, section: &str, contents: &str) -> Result<()> {
    let old = match fs::read_to_string(path) {
        Ok(old) => old,
        Err(error) if error.kind() == ErrorKind::NotFound => "# Performance\n".to_owned(),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let new = replace(&old, section, contents).with_context(|| path.display().to_string())?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    fs::write(path, new).with_context(|| format!("write {}", path.display()))
}

fn replace(old: &str, section: &str, contents: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- bench:{section} begin -->"), format!("<!-- bench:{section} end -->"));
    let block = format!("{begin}\n{}\n{end}", contents.trim_end());
    match (old.find(&begin), old.find(&end)) {
        (None, None) => Ok(format!("{}\n\n{block}\n", old.trim_end())),
        (Some(from), Some(to)) if from < to => {
            Ok(format!("{}{block}{}", &old[..from], &old[to + end.len()..]))
        }
        _ => bail!("the marker comments {begin} and {end} don't stand as a pair, in this order"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_added_then_replaced_and_nothing_else_changes() {
        let first = replace("# Title\n\ntext\n", "table", "one\n").unwrap();
        assert_eq!(first, "# Title\n\ntext\n\n<!-- bench:table begin -->\none\n<!-- bench:table end -->\n");
        let both = replace(&format!("{first}tail"), "other", "x").unwrap();
        let second = replace(&both, "table", "two").unwrap();
        assert_eq!(second, both.replace("one", "two"));
    }

    #[test]
    fn a_lone_marker_is_refused() {
        assert!(replace("<!-- bench:table begin -->", "table", "x").is_err());
        assert!(replace("<!-- bench:table end --><!-- bench:table begin -->", "table", "x").is_err());
    }
}
