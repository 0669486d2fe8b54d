//! Where the targets that need real files have them: a folder of the process's own, in memory where there is such a
//! place.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// What the folders are called, before the number of the process.
const PREFIX: &str = "tideline-fuzz-";

/// The folder. Those of processes that ended are removed.
pub fn folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let memory = Path::new("/dev/shm");
        let above = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        for entry in fs::read_dir(&above).expect("it is a folder").flatten() {
            let name = entry.file_name();
            let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
        let folder = above.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&folder).expect("there is room");
        folder
    });
    &FOLDER
}
