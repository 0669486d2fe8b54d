//! The files of a store, taken from one simulated disk and put on another.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tideline_journal::disk::{Disk, How, SimDisk, SimProcess};

use super::PATH;

/// The side folder of the database.
pub const SIDE: &str = "/app.db-tide";

/// Files, by their paths.
pub type Files = BTreeMap<String, Vec<u8>>;

pub fn load(process: &SimProcess, path: &str) -> Vec<u8> {
    let file = process.open(Path::new(path), How::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// All that belong to the database.
pub fn save(process: &SimProcess) -> Files {
    let inside = process.list(SIDE.as_ref()).unwrap().into_iter().map(|name| format!("{SIDE}/{name}"));
    inside.chain([PATH.to_owned()]).map(|path| (path.clone(), load(process, &path))).collect()
}

/// A disk that has them, durably.
pub fn disk_with(files: &Files) -> Arc<SimDisk> {
    let disk = SimDisk::new();
    let process = disk.process();
    process.create_dir(SIDE.as_ref()).unwrap();
    for (path, bytes) in files {
        let file = process.open(path.as_ref(), How::Create).unwrap();
        file.write_at(bytes, 0).unwrap();
        file.sync().unwrap();
    }
    disk
}
