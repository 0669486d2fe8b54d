//! What a store keeps about its remotes.

use serde::{Deserialize, Serialize};
use tideline_journal::{Code, Error, Lsn, RemotesFile, Result, Store, Unsent};

use crate::address::shown;
use crate::chain::Link;
use crate::hex;
use crate::manifest::{Hash, Trimmed};
use crate::settings::Settings;

/// A place where this store and a remote have the same history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    #[serde(with = "hex")]
    pub lineage: [u8; 16],
    /// Number of the manifest there; 0 where nothing was pushed yet.
    pub number: u64,
    /// Its hash.
    #[serde(with = "hex")]
    pub hash: Hash,
    pub lsn: u64,
    /// Identity of that commit.
    #[serde(with = "hex::number")]
    pub id: u64,
    /// Number of the newest manifest that has the whole database, up to this one.
    pub whole: u64,
    /// The hash of that one; zeros where it was never seen.
    #[serde(with = "hex", default)]
    pub root: Hash,
    /// What was given up there.
    #[serde(default)]
    pub trimmed: Option<Trimmed>,
}

impl Position {
    /// Before everything.
    pub fn start(lineage: [u8; 16]) -> Position {
        Position { lineage, number: 0, hash: [0; 32], lsn: 0, id: 0, whole: 0, root: [0; 32], trimmed: None }
    }

    /// Behind a manifest.
    pub fn behind(link: &Link) -> Position {
        let manifest = &link.manifest;
        let (lsn, id) = (manifest.part.last, manifest.part.id);
        Position {
            lineage: manifest.lineage,
            number: manifest.number,
            hash: link.hash,
            lsn,
            id,
            whole: manifest.whole,
            root: if manifest.whole == manifest.number { link.hash } else { [0; 32] },
            trimmed: manifest.trimmed,
        }
    }

    /// Behind a manifest that goes on from this position.
    pub fn and(&self, link: &Link) -> Position {
        let next = Position::behind(link);
        let root = if next.whole == self.whole { self.root } else { next.root };
        Position { root, ..next }
    }

    pub fn lsn(&self) -> Lsn {
        Lsn::new(self.lsn)
    }
}

/// A remote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remote {
    pub name: String,
    pub url: String,
    /// What else was said of it, but for secrets.
    #[serde(default)]
    pub settings: Settings,
    /// Nobody else pushes there, so the object store needn't tell writers apart.
    #[serde(default)]
    pub single_writer: bool,
    /// It was tried whether the object store tells writers apart.
    #[serde(default)]
    pub probed: bool,
    /// It is pushed to, or was to be: what it hasn't got stays in the journal.
    #[serde(default)]
    pub pushes: bool,
    #[serde(default)]
    pub position: Option<Position>,
    /// It has the commits up to this LSN as well, which are a part of what one push brought; 0 where nothing is known.
    #[serde(default)]
    pub part: u64,
    /// Writer in the manifest that was to be created last. Its number is the position's and 1.
    #[serde(default)]
    pub attempt: Option<String>,
    /// Segments of a whole database were being put there, with this salt, and no manifest names them yet.
    #[serde(default)]
    pub uploading: Option<String>,
    /// Manifests below this number are gone, as far as this store knows; 0 if it doesn't.
    #[serde(default)]
    pub swept: u64,
    /// Waymarks were left for what is gone below this number.
    #[serde(default)]
    pub marked: u64,
    /// When a lazy clone last wrote its lease there, in milliseconds since 1970.
    #[serde(default)]
    pub leased: u64,
    /// When it last did what it was asked to, in milliseconds since 1970.
    #[serde(default)]
    pub last_success: Option<u64>,
    /// Why it didn't, since then.
    #[serde(default)]
    pub last_error: Option<String>,
}

impl Remote {
    /// Takes note that a manifest of this store's is the newest there, which goes on from the position before.
    pub fn moved(&mut self, link: &Link) {
        self.position = Some(match &self.position {
            Some(position) => position.and(link),
            None => Position::behind(link),
        });
        self.uploading = None;
    }

    /// What of a lineage it had when it was last talked to; `None` where nothing was there, as far as is known.
    pub fn had(&self, lineage: [u8; 16]) -> Option<&Position> {
        self.position.as_ref().filter(|position| position.lineage == lineage && position.number > 0)
    }

    /// The newest LSN of a lineage that it is known to have; `None` if it was never asked.
    pub fn head(&self, lineage: [u8; 16]) -> Option<Lsn> {
        let position = self.position.as_ref().filter(|position| position.lineage == lineage)?;
        Some(position.lsn().max(Lsn::new(self.part)))
    }

    /// Forgets what was known of the chain that it stood in: it may be another one.
    pub fn stand_elsewhere(&mut self) {
        (self.swept, self.marked, self.part) = (0, 0, 0);
    }

    /// One that several may push to, of which nothing is known yet.
    pub fn new(name: &str, url: &str) -> Remote {
        Remote {
            name: name.to_owned(),
            url: url.to_owned(),
            settings: Settings::default(),
            single_writer: false,
            probed: false,
            pushes: false,
            position: None,
            part: 0,
            attempt: None,
            uploading: None,
            swept: 0,
            marked: 0,
            leased: 0,
            last_success: None,
            last_error: None,
        }
    }
}

/// All remotes of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Book {
    pub remotes: Vec<Remote>,
}

/// A remote's name as SQL writes it.
pub fn quoted(name: &str) -> String {
    format!("'{}'", name.replace('\'', "''"))
}

impl Book {
    /// As the store has it.
    pub fn load(store: &Store) -> Result<Book> {
        Book::read(store.remotes_kept()?)
    }

    /// As it is kept in a file now.
    pub fn load_from(file: &RemotesFile) -> Result<Book> {
        Book::read(file.read()?)
    }

    /// Changes it, durably.
    pub fn change<T>(store: &Store, change: impl FnOnce(&mut Book) -> Result<T>) -> Result<T> {
        store.change_remotes(|kept| {
            let mut book = Book::read(kept)?;
            let made = change(&mut book)?;
            let bytes = serde_json::to_vec(&book).map_err(|e| {
                let text = format!("the list of remotes can't be written: {e}; report this as a bug");
                Error::new(Code::Io, text)
            })?;
            Ok((bytes, book.unsent(store.lineage()), made))
        })
    }

    fn read(kept: Option<Vec<u8>>) -> Result<Book> {
        let Some(bytes) = kept else { return Ok(Book::default()) };
        serde_json::from_slice(&bytes).map_err(|e| {
            let text =
                format!("the list of remotes can't be read ({e}); use a newer version, or add them anew");
            Error::new(Code::Format, text)
        })
    }

    /// What is kept in the journal of a lineage for those that are pushed to.
    fn unsent(&self, lineage: [u8; 16]) -> Vec<Unsent> {
        let one = |remote: &Remote| {
            let position = remote.had(lineage)?;
            Some(Unsent { behind: position.lsn(), most: remote.settings.spool_limit() })
        };
        self.remotes.iter().filter(|remote| remote.pushes).filter_map(one).collect()
    }

    /// The remote `name`.
    ///
    /// # Errors
    /// `Argument` if there is none, with those that there are.
    pub fn find(&mut self, name: &str) -> Result<&mut Remote> {
        let names: Vec<_> = self.remotes.iter().map(|remote| remote.name.clone()).collect();
        self.remotes.iter_mut().find(|remote| remote.name == name).ok_or_else(|| {
            let name = quoted(&shown(name));
            let text = match &names[..] {
                [] => format!("there is no remote {name}; add it with tide_remote({name}, url)"),
                names => format!("there is no remote {name}; there are {}", names.join(", ")),
            };
            Error::new(Code::Argument, text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_remote_can_be_called() {
        assert_eq!(quoted("it's"), "'it''s'");
        let mut book = Book { remotes: Vec::new() };
        let said = book.find("it's").map(|_| ()).unwrap_err().to_string();
        assert!(said.contains("tide_remote('it''s', url)"), "{said}");
    }

    #[test]
    fn the_journal_is_kept_for_those_that_are_pushed_to_from_where_they_are() {
        let at = |lsn| Some(Position { number: 3, lsn, ..Position::start([1; 16]) });
        let remote =
            |name: &str, pushes, position| Remote { pushes, position, ..Remote::new(name, "file:///r") };
        let book = Book {
            remotes: vec![
                remote("near", true, at(9)),
                remote("far", true, at(4)),
                remote("followed", false, at(2)),
                remote("never reached", true, None),
                remote("empty", true, Some(Position::start([1; 16]))),
            ],
        };
        let behind: Vec<u64> = book.unsent([1; 16]).iter().map(|one| one.behind.get()).collect();
        assert_eq!(behind, [9, 4]);
        assert!(book.unsent([1; 16]).iter().all(|one| one.most == 256 << 20));
        assert!(book.unsent([2; 16]).is_empty(), "of another lineage");
    }
}
