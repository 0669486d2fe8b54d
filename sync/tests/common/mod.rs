//! Object stores that fail, and stores that are pushed to them.
#![allow(dead_code, reason = "each test uses its part")]

#[path = "../../../journal/tests/common/mod.rs"]
pub mod pages;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::DateTime;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tideline_journal::disk::{Disk, SimProcess};
use tideline_journal::{Clock, Durability, Lsn, Session, Store};
use tideline_sync::{Address, Cloning, Options, Point, RemotePages, Remotes};

use pages::{Model, Rng};

/// The URL of a remote whose objects are in memory; nothing is made there.
pub const URL: &str = "file:///tmp";

/// What becomes of a request that is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// It has no effect.
    Refused,
    /// It has its effect, and the answer gets lost.
    Unanswered,
    /// It has no effect, and neither has any other afterwards.
    Dead,
    /// It has its effect, its answer gets lost, and no other has any.
    DeadAfter,
    /// It has no effect, as the credentials are too old.
    Expired,
}

/// What an object store does with those who create an object that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Honesty {
    /// It refuses.
    #[default]
    Honest,
    /// It overwrites.
    Overwrites,
    /// It looks, and puts the object there later.
    Races,
    /// It refuses, and overwrites all the same.
    Lies,
}

/// What happens, once, when a segment is asked for; the request fails then.
#[derive(Default)]
pub struct Hook(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// Objects in memory, behind a network that fails when it is told to.
#[derive(Debug, Default)]
pub struct Fickle {
    pub memory: InMemory,
    hook: Hook,
    pub honesty: Honesty,
    requests: AtomicU64,
    /// Number of the request that fails, from 1 on, and how.
    failing: Option<(u64, Failing)>,
    /// Of a thousand requests so many fail, as drawn from this seed.
    some: AtomicU64,
    drawn: AtomicU64,
    dead: AtomicBool,
    /// Milliseconds since 1970, by its clock, if that isn't the machine's; and when objects were written, by that.
    now: AtomicU64,
    written: Mutex<HashMap<Path, u64>>,
    /// Nothing is put into this folder.
    refused_in: Mutex<Option<String>>,
    /// No request is answered.
    stall: AtomicBool,
    stalled: AtomicU64,
}

impl Fickle {
    pub fn new() -> Arc<Fickle> {
        Arc::new(Fickle::default())
    }

    /// One that works, with these objects.
    pub fn over(memory: InMemory) -> Arc<Fickle> {
        Arc::new(Fickle { memory, ..Fickle::default() })
    }

    /// An empty one.
    pub fn that(honesty: Honesty) -> Arc<Fickle> {
        Arc::new(Fickle { honesty, ..Fickle::default() })
    }

    /// The same objects, with the `n`-th request from now failing.
    pub fn failing_at(memory: InMemory, n: u64, failing: Failing) -> Arc<Fickle> {
        Arc::new(Fickle { memory, failing: Some((n, failing)), ..Fickle::default() })
    }

    /// A copy, with the `n`-th request from now failing, if that is said.
    pub fn forked(&self, failing: Option<(u64, Failing)>) -> Arc<Fickle> {
        Arc::new(Fickle {
            memory: self.memory.fork(),
            failing,
            now: AtomicU64::new(self.now.load(Ordering::SeqCst)),
            written: Mutex::new(self.written.lock().unwrap().clone()),
            ..Fickle::default()
        })
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Has so many of a thousand requests fail from now on, half of them after they had their effect.
    pub fn fail_some(&self, of_a_thousand: u64, seed: u64) {
        self.some.store(of_a_thousand, Ordering::SeqCst);
        self.drawn.store(seed, Ordering::SeqCst);
    }

    /// Has no request work from now on, or have any effect.
    pub fn dies(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    /// Has nothing be put into this folder from now on.
    pub fn refuse_in(&self, folder: &str) {
        *self.refused_in.lock().unwrap() = Some(folder.to_owned());
    }

    /// Sets its clock.
    pub fn set_clock(&self, now: u64) {
        self.now.store(now, Ordering::SeqCst);
    }

    /// Has this done when a segment is next asked for.
    pub fn meanwhile(&self, work: impl FnOnce() + Send + 'static) {
        *self.hook.0.lock().unwrap() = Some(Box::new(work));
    }

    /// When the objects in a folder were written, by its clock.
    pub fn written_in(&self, folder: &str) -> Vec<u64> {
        let written = self.written.lock().unwrap();
        written.iter().filter(|(at, _)| at.as_ref().starts_with(folder)).map(|(_, &time)| time).collect()
    }

    /// Has every request wait from now on, or go on.
    pub fn stall(&self, yes: bool) {
        self.stall.store(yes, Ordering::SeqCst);
    }

    /// How many requests wait, or have waited.
    pub fn stalled(&self) -> u64 {
        self.stalled.load(Ordering::SeqCst)
    }

    async fn held_up(&self) {
        if self.stall.load(Ordering::SeqCst) {
            self.stalled.fetch_add(1, Ordering::SeqCst);
        }
        while self.stall.load(Ordering::SeqCst) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    fn refused(&self) -> object_store::Error {
        match self.failing {
            Some((_, Failing::Expired)) => generic("status 400 Bad Request: ExpiredToken: it has expired"),
            _ => lost(),
        }
    }

    /// Counts a request: whether it has an effect, and whether its answer arrives.
    fn ask(&self) -> (bool, bool) {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        if self.dead.load(Ordering::SeqCst) {
            return (false, false);
        }
        let some = self.some.load(Ordering::SeqCst);
        if some > 0 {
            let drawn = Rng(self.drawn.fetch_add(1, Ordering::SeqCst)).next();
            if drawn % 1000 < some {
                return (drawn >> 32 & 1 == 0, false);
            }
        }
        match self.failing {
            Some((at, failing)) if number == at => {
                (matches!(failing, Failing::Unanswered | Failing::DeadAfter), false)
            }
            Some((at, Failing::Dead | Failing::DeadAfter)) if number > at => (false, false),
            _ => (true, true),
        }
    }
}

fn generic(text: &str) -> object_store::Error {
    object_store::Error::Generic { store: "fickle", source: text.into() }
}

fn by_its_clock(written: &HashMap<Path, u64>, mut meta: ObjectMeta) -> ObjectMeta {
    if let Some(&at) = written.get(&meta.location) {
        meta.last_modified = DateTime::from_timestamp_millis(at as i64).unwrap();
    }
    meta
}

fn lost() -> object_store::Error {
    generic("the connection was cut")
}

impl fmt::Display for Fickle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fickle")
    }
}

#[async_trait]
impl ObjectStore for Fickle {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.held_up().await;
        let (effect, answer) = self.ask();
        let is_refused = |folder: &String| at.as_ref().starts_with(folder);
        if !effect || self.refused_in.lock().unwrap().as_ref().is_some_and(is_refused) {
            return Err(self.refused());
        }
        let creates = options.mode == PutMode::Create;
        match self.now.load(Ordering::SeqCst) {
            0 => {}
            now => drop(self.written.lock().unwrap().insert(at.clone(), now)),
        }
        let put = match self.honesty {
            Honesty::Overwrites if creates => self.memory.put_opts(at, payload, PutOptions::default()).await,
            Honesty::Races if creates => match self.memory.get_opts(at, GetOptions::default()).await {
                Ok(_) => self.memory.put_opts(at, payload, options).await,
                Err(_) => {
                    tokio::task::yield_now().await;
                    self.memory.put_opts(at, payload, PutOptions::default()).await
                }
            },
            Honesty::Lies if creates => {
                let put = self.memory.put_opts(at, payload.clone(), options).await;
                self.memory.put_opts(at, payload, PutOptions::default()).await?;
                put
            }
            _ => self.memory.put_opts(at, payload, options).await,
        };
        if answer { put } else { Err(lost()) }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("objects are put whole")
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.held_up().await;
        let work = self.hook.0.lock().unwrap().take_if(|_| at.as_ref().starts_with("segment/"));
        if let Some(work) = work {
            work();
            return Err(lost());
        }
        let (_, answer) = self.ask();
        if !answer {
            return Err(self.refused());
        }
        let mut found = self.memory.get_opts(at, options).await?;
        found.meta = by_its_clock(&self.written.lock().unwrap(), found.meta);
        Ok(found)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.ask() {
            (true, true) => self.memory.delete_stream(paths),
            (true, false) => self.memory.delete_stream(paths).map(|_| Err(lost())).boxed(),
            (false, _) => paths.map(|_| Err(lost())).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let written = self.written.lock().unwrap().clone();
        self.memory.list(prefix).map_ok(move |meta| by_its_clock(&written, meta)).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        unreachable!("nothing is listed")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unreachable!("nothing is copied")
    }
}

/// A way to these objects.
pub fn way(
    fickle: &Arc<Fickle>,
) -> impl Fn(&Address) -> tideline_journal::Result<Arc<dyn ObjectStore>> + use<> {
    let fickle = Arc::clone(fickle);
    move |_| Ok(Arc::clone(&fickle) as Arc<dyn ObjectStore>)
}

/// The remotes of a store, reached through `fickle`.
pub fn remotes<'a>(store: &'a Arc<Store>, fickle: &Arc<Fickle>) -> Remotes<'a> {
    Remotes::through(store, way(fickle))
}

/// Makes a database at `path` from what is in `fickle`.
pub fn clone(process: &Arc<SimProcess>, fickle: &Arc<Fickle>, path: &str) -> tideline_journal::Result<Lsn> {
    clone_until(process, fickle, path, Options::new(), Point::Newest)
}

/// The same in the place of what is at `path`.
pub fn replace(process: &Arc<SimProcess>, fickle: &Arc<Fickle>, path: &str) -> tideline_journal::Result<Lsn> {
    clone_as(process, fickle, path, Options::new(), Point::Newest, true)
}

/// The same with these options, as far as `until`.
pub fn clone_until(
    process: &Arc<SimProcess>,
    fickle: &Arc<Fickle>,
    path: &str,
    remote: Options,
    until: Point,
) -> tideline_journal::Result<Lsn> {
    clone_as(process, fickle, path, remote, until, false)
}

fn clone_as(
    process: &Arc<SimProcess>,
    fickle: &Arc<Fickle>,
    path: &str,
    remote: Options,
    until: Point,
    replace: bool,
) -> tideline_journal::Result<Lsn> {
    let disk = Arc::clone(process) as Arc<dyn Disk>;
    let cloning = Cloning { url: URL, remote, until, replace, options: options(fickle), stop: &|| false };
    cloning.through(way(fickle), disk, std::path::Path::new(path))
}

/// How stores are opened whose pages may be in `fickle`.
pub fn options(fickle: &Arc<Fickle>) -> tideline_journal::Options {
    let source = RemotePages::through(way(fickle));
    tideline_journal::Options { source: Some(Arc::new(source)), ..pages::options() }
}

/// Opens what was cloned from `fickle`.
pub fn reopen(
    process: &Arc<SimProcess>,
    fickle: &Arc<Fickle>,
    path: &str,
) -> tideline_journal::Result<Arc<Store>> {
    Store::open(Arc::clone(process) as Arc<dyn Disk>, std::path::Path::new(path), options(fickle))
}

/// Time that moves when it is told to.
pub struct Moved(pub AtomicU64);

impl Clock for Moved {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Runs a future that is never pending: objects in memory answer at once.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Copies of all objects.
pub fn objects(fickle: &Fickle) -> Vec<(Path, Vec<u8>)> {
    now(async {
        let mut all = Vec::new();
        for found in fickle.memory.list(None).try_collect::<Vec<_>>().await.unwrap() {
            let bytes = fickle.memory.get(&found.location).await.unwrap().bytes().await.unwrap();
            all.push((found.location, bytes.to_vec()));
        }
        all
    })
}

/// Objects in memory, those that were copied.
pub fn over(objects: &[(Path, Vec<u8>)]) -> Arc<Fickle> {
    let memory = InMemory::new();
    now(async {
        for (at, bytes) in objects {
            memory.put(at, bytes.clone().into()).await.unwrap();
        }
    });
    Fickle::over(memory)
}

/// Commits a random change.
pub fn commit(store: &Arc<Store>, rng: &mut Rng) -> tideline_journal::Result<Lsn> {
    let mut model = pages::read(store)?.1;
    let change = model.change(rng);
    let mut session = Session::new(Arc::clone(store))?;
    pages::commit(&mut session, &mut model, &change, Durability::Process)
}

/// What a clone of what is in `fickle` has.
pub fn cloned(fickle: &Arc<Fickle>) -> (Lsn, Model) {
    let disk = tideline_journal::disk::SimDisk::new();
    let process = disk.process();
    clone(&process, fickle, "/clone.db").unwrap_or_else(|e| panic!("cloning: {e}"));
    let store = reopen(&process, fickle, "/clone.db").unwrap();
    assert!(store.verify().unwrap().is_empty());
    pages::read(&store).unwrap()
}
