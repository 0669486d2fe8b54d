//! A folder for one test.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::library::{against_stock, dist, library};

/// A folder for one test, removed with it. `./libtideline` is in it, so that scripts can say what the README says.
pub struct Scratch {
    folder: TempDir,
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// A new one.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("tideline-test-").tempdir().expect("a temporary folder");
        if !against_stock() {
            library();
            for entry in std::fs::read_dir(dist()).expect("the folder of the library") {
                let entry = entry.expect("an entry of that folder");
                std::os::unix::fs::symlink(entry.path(), folder.path().join(entry.file_name()))
                    .expect("a link");
            }
        }
        Self { folder }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder that Tideline keeps beside the database of this name.
    pub fn side(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}-tide"))
    }

    /// What is opened to reach the database of this name through Tideline.
    pub fn uri(&self, name: &str) -> String {
        self.uri_with(name, "")
    }

    /// The same with more parameters, as in `mode=ro&cache=shared`.
    pub fn uri_with(&self, name: &str, parameters: &str) -> String {
        uri(&self.path(name), parameters)
    }

    /// Reads a file in it.
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Copies the database at `from`, as it is on disk and with its side folder, to `to`.
    pub fn copy_store(&self, from: &str, to: &str) {
        std::fs::copy(self.path(from), self.path(to)).expect("the base copied");
        if self.side(from).exists() {
            copy_folder(&self.side(from), &self.side(to));
        }
    }
}

/// A `file:` URI, through Tideline unless the harness is told otherwise.
pub(crate) fn uri(path: &Path, parameters: &str) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(byte)),
            _ => uri += &format!("%{byte:02x}"),
        }
    }
    let ours = if against_stock() { "" } else { "vfs=tideline" };
    let parameters =
        [ours, parameters].iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join("&");
    if !parameters.is_empty() {
        uri.push('?');
        uri += &parameters;
    }
    uri
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder for the copy");
    for entry in std::fs::read_dir(from).expect("the folder to copy") {
        let entry = entry.expect("an entry of that folder");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("the file copied");
        }
    }
}

/// The files below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
