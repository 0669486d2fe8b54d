//! The remotes of a store, as a host sees them.

use std::path::Path;
use std::sync::Arc;

use tideline_journal::disk::{Disk, How};
use tideline_journal::{
    Clock, Code, Error, Lsn, Options, RemotesTurn, Result, Store, SystemClock, Traffic, side_folder,
};

use crate::address::Address;
use crate::book::{Book, Remote};
use crate::objects::Objects;
use crate::probe::probe;
use crate::segment::PIECE_BYTES;
use crate::{pull, push};

/// The remote that is meant where none is named.
pub const ORIGIN: &str = "origin";

/// A remote, as `tide_remotes` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// The word for what it is.
    pub kind: &'static str,
    /// The LSN that it is known to have; `None` if it was never asked.
    pub head: Option<Lsn>,
    /// How many LSNs it is known to have that this store hasn't.
    pub behind: u64,
    /// How many LSNs this store has that it isn't known to have.
    pub ahead: u64,
    /// When it last did what it was asked to, in milliseconds since 1970.
    pub last_success: Option<u64>,
    /// Why it didn't, since then.
    pub last_error: Option<String>,
    /// What this process has asked of it.
    pub traffic: Traffic,
}

/// How an object store is reached.
type Open = dyn Fn(&Address) -> Result<Objects>;

/// The remotes of one store.
pub struct Remotes<'a> {
    store: &'a Arc<Store>,
    open: Box<Open>,
    piece: u64,
}

/// What is done with a remote.
type Work<'a> = dyn FnMut(&Objects, &mut Remote, &mut push::Keep<'_>) -> Result<Lsn> + 'a;

impl<'a> Remotes<'a> {
    /// Those of `store`.
    pub fn of(store: &'a Arc<Store>) -> Remotes<'a> {
        Remotes::through(store, Objects::at)
    }

    /// The same, with object stores reached in another way.
    pub fn through(
        store: &'a Arc<Store>,
        open: impl Fn(&Address) -> Result<Objects> + 'static,
    ) -> Remotes<'a> {
        Remotes { store, open: Box::new(open), piece: PIECE_BYTES }
    }

    /// The same, pushing in pieces of about so many bytes.
    pub fn in_pieces(self, bytes: u64) -> Remotes<'a> {
        Remotes { piece: bytes, ..self }
    }

    fn how(&self) -> push::How {
        push::How { now: SystemClock.now_ms(), piece: self.piece }
    }

    /// Adds a remote, or gives it another URL. What it is asked for must be safe there, unless only this store is ever
    /// pushed to it.
    ///
    /// # Errors
    /// `Argument`; `Denied` where the object store lets two writers both believe that they won; `Offline`; `Busy`.
    pub fn add(&self, name: &str, url: &str, single_writer: bool) -> Result<()> {
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 64 || !name.chars().all(sound) {
            let text =
                format!("{name:?} is no name for a remote; give letters, digits, '.', '_' or '-', up to 64");
            return Err(Error::new(Code::Argument, text));
        }
        let address = Address::parse(url)?;
        let turn = self.store.remotes_turn()?;
        let mut book = Book::load(self.store)?;
        address.prepare()?;
        let objects = (self.open)(&address)?;
        let probed = if single_writer { Ok(()) } else { probe(&objects) };
        self.store.count_traffic(name, objects.traffic());
        probed?;
        let remote = Remote { single_writer, probed: !single_writer, ..Remote::new(name, url) };
        match book.remotes.iter_mut().find(|known| known.name == name) {
            Some(known) if known.url == url => {
                known.single_writer = single_writer;
                known.probed |= !single_writer;
            }
            Some(known) => *known = remote,
            None => book.remotes.push(remote),
        }
        book.keep(&turn)
    }

    /// Forgets a remote. What is there stays there.
    ///
    /// # Errors
    /// `Argument` if there is none of that name; `Busy`.
    pub fn remove(&self, name: &str) -> Result<()> {
        let turn = self.store.remotes_turn()?;
        let mut book = Book::load(self.store)?;
        book.find(name)?;
        book.remotes.retain(|remote| remote.name != name);
        book.keep(&turn)
    }

    /// All of them, in the order in which they were added.
    ///
    /// # Errors
    /// `Damaged`, `Format`, `Io`.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let traffic = self.store.traffic();
        let (head, lineage) = (self.store.head(), self.store.lineage());
        let listed = |remote: Remote| {
            let there = remote.position.filter(|p| p.lineage == lineage).map(|p| p.lsn());
            Listed {
                kind: Address::parse(&remote.url).map_or("unknown", |address| address.kind()),
                head: there,
                behind: there.map_or(0, |there| there.get().saturating_sub(head.get())),
                ahead: head.get().saturating_sub(there.unwrap_or(Lsn::ZERO).get()),
                last_success: remote.last_success,
                last_error: remote.last_error,
                traffic: traffic.get(&remote.name).copied().unwrap_or_default(),
                name: remote.name,
                url: remote.url,
            }
        };
        Ok(Book::load(self.store)?.remotes.into_iter().map(listed).collect())
    }

    /// Pushes what a remote doesn't have; returns the LSN that it has then.
    ///
    /// # Errors
    /// `Diverged` if somebody else pushed what this store hasn't: nothing is changed on either side. `Argument`,
    /// `Foreign`, `Offline`, `Denied`, `Busy`.
    pub fn push(&self, name: &str) -> Result<Lsn> {
        self.with(name, &mut |objects, remote, keep| {
            push::push(self.store, objects, remote, self.how(), keep)
        })
    }

    /// Gets what a remote has; returns the LSN that this store has then. Readers go on.
    ///
    /// # Errors
    /// `Diverged` if both sides have commits that the other hasn't: nothing is changed on either side. As
    /// [`Remotes::push`]; `Missing`, `Damaged` where objects aren't what they should be.
    pub fn pull(&self, name: &str) -> Result<Lsn> {
        self.with(name, &mut |objects, remote, keep| pull::pull(self.store, objects, remote, keep))
    }

    /// Pulls, then pushes; returns the LSN that both have then.
    ///
    /// # Errors
    /// As both.
    pub fn sync(&self, name: &str) -> Result<Lsn> {
        self.with(name, &mut |objects, remote, keep| {
            pull::pull(self.store, objects, remote, keep)?;
            push::push(self.store, objects, remote, self.how(), keep)
        })
    }

    /// Works with a remote, and keeps what became of it.
    fn with(&self, name: &str, work: &mut Work<'_>) -> Result<Lsn> {
        let turn: RemotesTurn<'_> = self.store.remotes_turn()?;
        let mut book = Book::load(self.store)?;
        let mut remote = book.find(name)?.clone();
        let address = Address::parse(&remote.url)?;
        let done = (self.open)(&address).and_then(|objects| {
            let mut keep = |remote: &Remote| {
                *book.find(name)? = remote.clone();
                book.keep(&turn)
            };
            let done = work(&objects, &mut remote, &mut keep);
            self.store.count_traffic(name, objects.traffic());
            done
        });
        match &done {
            Ok(_) => (remote.last_success, remote.last_error) = (Some(SystemClock.now_ms()), None),
            Err(e) if e.code() == Code::Busy => {}
            Err(e) => remote.last_error = Some(e.to_string()),
        }
        *book.find(name)? = remote;
        let kept = book.keep(&turn);
        done.and_then(|lsn| kept.map(|()| lsn))
    }
}

/// Makes a new database at the absolute `path` from what is at `url`, which becomes its remote `origin`; returns its LSN.
///
/// # Errors
/// `Argument` if something is at `path`; `Missing` if nothing was pushed to `url`; as [`Remotes::pull`]. Nothing is left
/// at `path` then.
pub fn clone_into(disk: Arc<dyn Disk>, url: &str, path: &Path, options: Options, open: &Open) -> Result<Lsn> {
    let address = Address::parse(url)?;
    let objects = open(&address)?;
    let side = side_folder(path);
    for there in [path, &side] {
        let exists = disk.exists(there).map_err(|e| {
            Error::new(Code::Io, format!("looking for {}: {e}; give another path", there.display()))
        })?;
        if exists {
            let text = format!("{} exists already; give the path of a new database", there.display());
            return Err(Error::new(Code::Argument, text));
        }
    }
    // Of two who make it at once, one does.
    disk.open(path, How::CreateNew).map_err(|e| {
        let code = if e.kind() == std::io::ErrorKind::AlreadyExists { Code::Argument } else { Code::Io };
        Error::new(code, format!("{} can't be made: {e}; give another path", path.display()))
    })?;
    let store = Store::open(Arc::clone(&disk), path, options).inspect_err(|_| drop(disk.remove(path)))?;
    let cloned = (|| {
        let turn = store.remotes_turn()?;
        let mut remote = Remote { last_success: Some(SystemClock.now_ms()), ..Remote::new(ORIGIN, url) };
        let lsn = pull::pull(&store, &objects, &mut remote, &mut |_| Ok(()))?;
        if lsn == Lsn::ZERO {
            let text = format!("{url} holds no database yet; push one there first");
            return Err(Error::new(Code::Missing, text));
        }
        Book { remotes: vec![remote] }.keep(&turn)?;
        Ok(lsn)
    })();
    match cloned {
        Ok(lsn) => store.close().map(|()| lsn),
        Err(e) => {
            // What stays is refused next time, with its name.
            give_up(&*disk, &store, path).ok();
            Err(e)
        }
    }
}

/// Removes a database that couldn't be made, unless somebody else has opened it meanwhile.
fn give_up(disk: &dyn Disk, store: &Arc<Store>, path: &Path) -> Result<()> {
    if store.detach().is_err() {
        return store.close();
    }
    disk.remove(path)
        .map_err(|e| Error::new(Code::Io, format!("removing {}: {e}; remove it", path.display())))
}
