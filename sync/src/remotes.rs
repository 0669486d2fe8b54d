//! The remotes of a store, as a host sees them.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use tideline_journal::{Clock, Code, Error, Lsn, Result, Store, SystemClock, Traffic, side_folder};

use crate::address::{Address, Kind, shown};
use crate::book::{Book, Position, Remote};
use crate::chain::Sure;
use crate::desk::Desk;
use crate::keeper::Keeper;
use crate::key::nothing_hidden;
use crate::options::Options;
use crate::point::Point;
use crate::probe::probe;
use crate::segment::PIECE_BYTES;
use crate::settings::{Given, Secrets};
use crate::trim::GRACE;
use crate::{lease, place, pull, push, trim};

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
    /// What it hasn't isn't all in the journal any more: the next push compares the whole database with what is there.
    pub needs_full: bool,
    /// When it last did what it was asked to, in milliseconds since 1970.
    pub last_success: Option<u64>,
    /// Why it didn't, since then.
    pub last_error: Option<String>,
    /// When this process tries something with it by itself, in milliseconds since 1970.
    pub next_try: Option<u64>,
    /// What this process has asked of it.
    pub traffic: Traffic,
}

/// What is done with a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Pushing.
    Push,
    /// Pulling.
    Pull,
    /// Pulling, then pushing.
    Sync,
}

/// The remote `known`, said again for an `address` that may be the place that it has; `None` where it is another.
fn again(
    known: &Remote,
    told: &Secrets,
    address: &Address,
    options: Option<&Options>,
    given: Option<&Given>,
) -> Option<(Remote, Given)> {
    let (none, was) = (Options::new(), Address::parse(&known.url).ok()?);
    let options = options.unwrap_or(&none);
    let given = given.cloned().unwrap_or_default().over(options, &known.settings);
    let (there, here) = ((&was, &known.settings), (address, &given.settings));
    if !place::may_be_one(there, here) {
        return None;
    }
    let same = place::is_one_machine(there, here);
    let given = if same { given.told(options, told) } else { given };
    Some((Remote { url: address.url().to_owned(), ..known.clone() }, given))
}

/// The remotes of one store.
pub struct Remotes<'a> {
    store: &'a Arc<Store>,
    desk: Arc<Desk>,
    stop: &'a dyn Fn() -> bool,
    piece: u64,
    grace: Duration,
}

impl<'a> Remotes<'a> {
    /// Those of `store`.
    pub fn of(store: &'a Arc<Store>) -> Remotes<'a> {
        Remotes::at(store, store.companion(Desk::usual))
    }

    /// The same, with object stores reached in another way.
    pub fn through(
        store: &'a Arc<Store>,
        open: impl Fn(&Address) -> Result<Arc<dyn ObjectStore>> + Send + Sync + 'static,
    ) -> Remotes<'a> {
        Remotes::at(store, Arc::new(Desk::new(Arc::new(move |address, _| open(address)))))
    }

    pub(crate) fn at(store: &'a Arc<Store>, desk: Arc<Desk>) -> Remotes<'a> {
        Remotes { store, desk, stop: &|| false, piece: PIECE_BYTES, grace: GRACE }
    }

    /// The same, pushing in pieces of about so many bytes.
    pub fn in_pieces(self, bytes: u64) -> Remotes<'a> {
        Remotes { piece: bytes, ..self }
    }

    /// The same, but what a remote gives up stays for so long only: safe where nobody else is in the middle of anything.
    pub fn giving_up_after(self, grace: Duration) -> Remotes<'a> {
        Remotes { grace, ..self }
    }

    /// The same, until `stop` says so: what is under way is given up, and goes on the next time.
    pub fn until(self, stop: &'a dyn Fn() -> bool) -> Remotes<'a> {
        Remotes { stop, ..self }
    }

    /// Adds a remote, or changes it. What it is asked for must be safe there, unless only this store is ever pushed to it.
    /// Where it may be the place that it was, options that aren't named stay, and so does what is known of it.
    ///
    /// # Errors
    /// `Argument`; `Denied` where the object store lets two writers both believe that they won; `Offline`; `Busy`.
    pub fn add(&self, name: &str, url: &str, options: Option<&Options>) -> Result<()> {
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 64 || !name.chars().all(sound) {
            let name = shown(name);
            let text =
                format!("{name:?} is no name for a remote; give letters, digits, '.', '_' or '-', up to 64");
            return Err(Error::new(Code::Argument, text));
        }
        let address = Address::parse(url)?;
        let given = options.map(|options| Given::read(options, address.kind())).transpose()?;
        if place::is_within(&address, &side_folder(self.store.path())) {
            let text = format!("{url} is in the database's own side folder; give a folder of its own");
            return Err(Error::new(Code::Argument, text));
        }
        let _turn = self.store.remote_turn(name)?;
        let book = Book::load(self.store)?;
        let known = book.remotes.iter().find(|known| known.name == name);
        let told = known.map(|known| self.desk.told(name, &known.url, &known.settings)).unwrap_or_default();
        let (mut remote, given) = known
            .and_then(|known| again(known, &told, &address, options, given.as_ref()))
            .unwrap_or_else(|| (Remote::new(name, url), given.unwrap_or_default()));
        remote.single_writer = given.settings.flag("single_writer");
        remote.settings = given.settings;
        let before = self.desk.told(name, url, &remote.settings);
        self.desk.tell(name, url, &remote.settings, given.secrets);
        self.desk.lose(name);
        self.desk.be_unsure(name);
        // Where something was nothing is made: what is missing there is to be put back, a disk perhaps, and not hidden.
        let begins = remote.had(self.store.lineage()).is_none();
        let prepared = if begins { address.prepare() } else { Ok(()) };
        let probed = prepared.and_then(|()| {
            let objects = self.desk.objects(name, &address, &remote.settings, begins, self.stop)?;
            let probed = if remote.single_writer {
                // Nothing is asked, so it may be away. The first push asks.
                Ok(())
            } else if objects.seal().is_some() {
                probe(&objects)
            } else {
                // It is told now, and not only by the first push.
                nothing_hidden(&objects).and_then(|()| probe(&objects))
            };
            self.store.count_traffic(name, objects.take_traffic());
            probed
        });
        // A remote that was refused is what it was before.
        probed.inspect_err(|_| self.desk.tell(name, url, &remote.settings, before))?;
        remote.probed |= !remote.single_writer;
        self.desk.place(name, &address, &remote.settings);
        Book::change(self.store, |book| {
            match book.remotes.iter_mut().find(|known| known.name == name) {
                Some(known) => *known = remote,
                None => book.remotes.push(remote),
            }
            Ok(())
        })
    }

    /// Forgets a remote. What is there stays there.
    ///
    /// # Errors
    /// `Argument` if there is none of that name; `Busy`.
    pub fn remove(&self, name: &str) -> Result<()> {
        // It would keep its turn for as long as its task takes. If another process has it, it is as it was.
        let pause = self.desk.pause_keeping(name);
        if let Some(pause) = &pause {
            pause.wait(self.stop);
        }
        let _turn = self.store.remote_turn(name)?;
        Book::change(self.store, |book| {
            book.find(name)?;
            book.remotes.retain(|remote| remote.name != name);
            Ok(())
        })?;
        self.desk.forget(name);
        Ok(())
    }

    /// All of them, in the order in which they were added.
    ///
    /// # Errors
    /// `Damaged`, `Format`, `Io`.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let traffic = self.store.traffic();
        let (head, lineage) = (self.store.head(), self.store.lineage());
        let listed = |remote: Remote| {
            let there = remote.head(lineage);
            let position = remote.had(lineage).map(Position::lsn);
            let needs_full = match position.filter(|_| there.is_some_and(|there| there < head)) {
                Some(position) => self.store.identity(position)?.is_none(),
                None => false,
            };
            Ok(Listed {
                needs_full,
                kind: Address::parse(&remote.url).map_or("unknown", |address| address.kind().word()),
                head: there,
                behind: there.map_or(0, |there| there.get().saturating_sub(head.get())),
                ahead: head.get().saturating_sub(there.unwrap_or(Lsn::ZERO).get()),
                last_success: remote.last_success,
                last_error: remote.last_error,
                next_try: self.desk.next_try(&remote.name),
                traffic: {
                    let mut asked = traffic.get(&remote.name).copied().unwrap_or_default();
                    asked += self.desk.counted(&remote.name);
                    asked
                },
                name: remote.name,
                url: remote.url,
            })
        };
        Book::load(self.store)?.remotes.into_iter().map(listed).collect()
    }

    /// Pushes what a remote doesn't have; returns the LSN that it has then.
    ///
    /// # Errors
    /// `Diverged` if somebody else pushed what this store hasn't: nothing is changed on either side. `Argument`,
    /// `Foreign`, `Offline`, `Denied`, `Busy`, `Interrupted`.
    pub fn push(&self, name: &str) -> Result<Lsn> {
        self.run(name, Task::Push)
    }

    /// Gets what a remote has; returns the LSN that this store has then. Readers go on.
    ///
    /// # Errors
    /// `Diverged` if both sides have commits that the other hasn't: nothing is changed on either side. As
    /// [`Remotes::push`]; `Missing`, `Damaged` where objects aren't what they should be.
    pub fn pull(&self, name: &str) -> Result<Lsn> {
        self.run(name, Task::Pull)
    }

    /// Pulls, then pushes; returns the LSN that both have then.
    ///
    /// # Errors
    /// As both.
    pub fn sync(&self, name: &str) -> Result<Lsn> {
        self.run(name, Task::Sync)
    }

    /// Does `task` every so often, for as long as a connection of this process has the store open; `None` for not any
    /// more. It is done once now, so that what can't work is told; that the remote is away, or somebody else talks to it, is
    /// no reason not to begin. Returns the LSN that the remote has, or, of a pull, this store.
    ///
    /// # Errors
    /// As [`Remotes::push`] and [`Remotes::pull`].
    pub fn keep_on(&self, name: &str, task: Task, every: Option<Duration>) -> Result<Lsn> {
        let Some(every) = every else {
            // Also that of a remote that another process has removed.
            let reached = self.reached(name, task);
            self.desk.stop_keeping(name);
            return reached;
        };
        let done = self.run(name, task);
        // That passes, and trying again is what it is for. If not, whoever keeps on now goes on.
        let passes = done.as_ref().is_err_and(|e| matches!(e.code(), Code::Offline | Code::Busy));
        let reached = if passes { self.reached(name, task)? } else { done? };
        self.desk.keep(name, Keeper::begin(self.store, &self.desk, name, task, every)?);
        Ok(reached)
    }

    /// The LSN that `task` is known to have reached: the remote's, as it was when it was last talked to, or this store's.
    fn reached(&self, name: &str, task: Task) -> Result<Lsn> {
        let mut book = Book::load(self.store)?;
        let there = book.find(name)?.head(self.store.lineage()).unwrap_or(Lsn::ZERO);
        Ok(if task == Task::Pull { self.store.head() } else { there })
    }

    /// Does `task` if there may be something to do.
    pub(crate) fn once_more(&self, name: &str, task: Task) -> Result<()> {
        if task == Task::Push {
            let mut book = Book::load(self.store)?;
            let remote = book.find(name)?;
            let position = remote.position.as_ref().filter(|p| p.lineage == self.store.lineage());
            if remote.attempt.is_none() && position.is_some_and(|p| p.lsn() == self.store.head()) {
                return self.keep_lease(name);
            }
        }
        self.run(name, task).map(drop)
    }

    /// Has a lazy clone say that it still needs what it was cloned from, though it has nothing else to say.
    fn keep_lease(&self, name: &str) -> Result<()> {
        let mut remote = Book::load(self.store)?.find(name)?.clone();
        if !self.is_lease_due(&remote) {
            return Ok(());
        }
        let _turn = self.store.remote_turn(name)?;
        self.renew_lease(&mut remote);
        Book::change(self.store, |book| {
            book.find(name)?.leased = remote.leased;
            Ok(())
        })
    }

    fn is_lease_due(&self, remote: &Remote) -> bool {
        let now = self.store.now();
        self.store.is_clone()
            && now.abs_diff(remote.leased) >= lease::RENEWED_EVERY
            && self.desk.leased().is_none_or(|tried| now.abs_diff(tried) >= lease::TRIED_EVERY)
    }

    /// Writes a lazy clone's lease again, if it is time. Who may not write has none. Where it can't be written, it is tried
    /// again a while later: pages are there meanwhile, and nothing else waits for it.
    fn renew_lease(&self, remote: &mut Remote) {
        if !self.is_lease_due(remote) {
            return;
        }
        let now = self.store.now();
        self.desk.note_lease(now);
        match self.store.keep_source(self.stop) {
            Err(e) if e.code() != Code::Denied => {}
            _ => remote.leased = now,
        }
    }

    /// Works with a remote, and keeps what became of it.
    fn run(&self, name: &str, task: Task) -> Result<Lsn> {
        let _turn = self.store.remote_turn(name)?;
        let mut remote = Book::load(self.store)?.find(name)?.clone();
        remote.pushes |= task != Task::Pull;
        let address = Address::parse(&remote.url)?;
        // Another process may have moved it.
        self.desk.place(name, &address, &remote.settings);
        let keep = |remote: &Remote| {
            Book::change(self.store, |book| {
                *book.find(name)? = remote.clone();
                Ok(())
            })
        };
        let trouble = Cell::new(None);
        let reached = self.desk.objects(name, &address, &remote.settings, false, self.stop);
        let done = reached.and_then(|objects| {
            let mut keep = |remote: &Remote| {
                self.store.count_traffic(name, objects.take_traffic());
                keep(remote)
            };
            let sure = match address.kind() {
                // A folder may be another one by now.
                Kind::File => Sure::of_folder(),
                _ => self.desk.sure(name, address.url(), &remote.settings),
            };
            let mut done = Ok(Lsn::ZERO);
            if task != Task::Push {
                let (store, until) = (self.store, Point::Newest);
                done = pull::pull(store, &objects, &mut remote, &sure, until, &mut keep);
            }
            if task != Task::Pull && done.is_ok() {
                let Remotes { piece, grace, .. } = *self;
                let how = push::How { now: self.store.now(), piece, grace, sure: &sure, trouble: &trouble };
                done = push::push(self.store, &objects, &mut remote, how, &mut keep);
                if done.is_ok() && remote.settings.retention().is_some() {
                    if let Err(e) = trim::sweep(&objects, &mut remote, how.now, &mut keep) {
                        trouble.set(Some(e));
                    }
                }
            }
            match &done {
                Ok(_) => self.desk.be_sure(name, address.url(), &remote.settings, sure.noted()),
                Err(_) => self.desk.be_unsure(name),
            }
            // Whoever was refused reads pages there all the same; but nothing is written where the database isn't.
            let refused =
                |e: &Error| matches!(e.code(), Code::Diverged | Code::Denied | Code::Trimmed | Code::Damaged);
            if done.as_ref().err().is_none_or(refused) {
                self.renew_lease(&mut remote);
            }
            self.store.count_traffic(name, objects.take_traffic());
            done
        });
        match &done {
            // What was pushed is there, whatever became of what was to be removed.
            Ok(_) => {
                remote.last_success = Some(SystemClock.now_ms());
                remote.last_error = trouble.take().map(|e: Error| e.to_string());
            }
            Err(e) if matches!(e.code(), Code::Busy | Code::Interrupted) => {}
            Err(e) => remote.last_error = Some(e.to_string()),
        }
        if done.as_ref().is_err_and(|e| e.code() == Code::Denied) {
            self.desk.lose(name);
        }
        let kept = keep(&remote);
        done.and_then(|lsn| kept.map(|()| lsn))
    }
}
