//! The engines, and how each opens a database.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use rusqlite::{Connection, LoadExtensionGuard, OpenFlags};
use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::floor;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// SQLite's own WAL mode.
    Stock,
    /// `?vfs=tideline`.
    Tideline,
    /// `:memory:`.
    Memory,
    /// A VFS that costs nothing: nothing can be faster.
    Floor,
}

/// `PRAGMA synchronous`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sync {
    /// No commit waits for the disk, and none is safe from a power cut.
    Off,
    /// Consistent after a power cut.
    Normal,
    /// Every commit waits for the disk.
    Full,
}

/// `PRAGMA cache_size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cache {
    /// As the command line says, which is SQLite's default unless it says otherwise.
    Default,
    /// So much that SQLite never gives up a page.
    Whole,
}

/// What a workload chooses for a connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Tuning {
    /// Durability.
    pub sync: Sync,
    /// Page cache.
    pub cache: Cache,
}

/// A place for one database of one engine. It can be sent to another process, which opens the same one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Site {
    /// Whose.
    pub engine: Engine,
    /// The database file; its folder is the site's own.
    pub path: PathBuf,
    /// The run's.
    pub settings: Settings,
}

impl Engine {
    /// All, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Stock, Self::Tideline, Self::Memory, Self::Floor];

    /// The table's heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Stock => "stock WAL",
            Self::Tideline => "Tideline",
            Self::Memory => "`:memory:`",
            Self::Floor => "floor",
        }
    }

    /// The name in folders and JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Tideline => "tideline",
            Self::Memory => "memory",
            Self::Floor => "floor",
        }
    }
}

impl Site {
    /// Makes an empty database with the run's page size.
    pub fn create(&self, tuning: Tuning) -> Result<Connection> {
        let connection = self.connect()?;
        connection.pragma_update(None, "page_size", self.settings.page_size)?;
        if self.engine == Engine::Stock {
            connection.pragma_update(None, "journal_mode", "wal")?;
        }
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        let expected = match self.engine {
            Engine::Stock | Engine::Tideline => "wal",
            Engine::Memory => "memory",
            Engine::Floor => "delete",
        };
        ensure!(mode == expected, "{}: journal_mode is {mode} instead of {expected}", self.engine.title());
        let page_size: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        ensure!(page_size == self.settings.page_size, "{}: page_size is {page_size}", self.engine.title());
        self.tune(&connection, tuning)?;
        Ok(connection)
    }

    /// Opens what [`Site::create`] made; of `:memory:`, which has nothing to come back to, it is another empty one.
    pub fn open(&self, tuning: Tuning) -> Result<Connection> {
        let connection = self.connect()?;
        self.tune(&connection, tuning)?;
        Ok(connection)
    }

    /// Closes a database, so that it comes to rest, and opens it again. `:memory:` stays as it is.
    pub fn reopen(&self, connection: Connection, tuning: Tuning) -> Result<Connection> {
        if self.engine == Engine::Memory {
            self.tune(&connection, tuning)?;
            return Ok(connection);
        }
        connection.close().map_err(|(_, error)| error).context("close")?;
        self.open(tuning)
    }

    /// Its folder.
    pub fn folder(&self) -> Result<&Path> {
        self.path.parent().context("a site without a folder")
    }

    /// Another database of the same engine, in a folder beside this one.
    pub fn sibling(&self, name: &str) -> Result<Self> {
        let parent = self.path.parent().and_then(Path::parent).context("a site without folders")?;
        Self::new(self.engine, &parent.join(name), &self.settings)
    }

    /// A new, empty folder for a database.
    pub fn new(engine: Engine, folder: &Path, settings: &Settings) -> Result<Self> {
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(Self { engine, path: folder.join("app.db"), settings: settings.clone() })
    }

    fn connect(&self) -> Result<Connection> {
        let plain = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let opened = match self.engine {
            Engine::Stock => Connection::open_with_flags(&self.path, plain),
            Engine::Memory => Connection::open_in_memory_with_flags(plain),
            Engine::Floor => {
                floor::register();
                Connection::open_with_flags_and_vfs(&self.path, plain, floor::NAME)
            }
            Engine::Tideline => {
                load_library(self.settings.library.as_deref().context("no Tideline library")?)?;
                let uri = format!("file:{}?vfs=tideline", escape(&self.path)?);
                Connection::open_with_flags(uri, plain | OpenFlags::SQLITE_OPEN_URI)
            }
        };
        let connection =
            opened.with_context(|| format!("{}: open {}", self.engine.title(), self.path.display()))?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        Ok(connection)
    }

    fn tune(&self, connection: &Connection, tuning: Tuning) -> Result<()> {
        let kib = match tuning.cache {
            Cache::Default => i64::from(self.settings.cache_kib),
            Cache::Whole => 4 << 20,
        };
        connection.pragma_update(None, "cache_size", -kib)?;
        let sync = match tuning.sync {
            Sync::Off => "OFF",
            Sync::Normal => "NORMAL",
            Sync::Full => "FULL",
        };
        connection.pragma_update(None, "synchronous", sync)?;
        if self.engine == Engine::Floor {
            // As Tideline has it by default.
            connection.pragma_update_and_check(None, "mmap_size", 1_i64 << 40, |_| Ok(()))?;
        }
        if let (Engine::Stock, Some(bytes)) = (self.engine, self.settings.stock_mmap) {
            let bytes = i64::try_from(bytes)?;
            let got: i64 = connection.pragma_update_and_check(None, "mmap_size", bytes, |row| row.get(0))?;
            ensure!(got == bytes, "--stock-mmap {bytes}: this SQLite allows {got}");
        }
        Ok(())
    }
}

/// `$TIDELINE_DIST/libtideline.so`, else that of `cargo xtask dist` in this workspace.
pub fn find_library() -> Result<PathBuf> {
    let name = format!("{}tideline{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let folder = std::env::var_os("TIDELINE_DIST")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dist"), PathBuf::from);
    let path = folder.join(name);
    path.canonicalize().with_context(|| {
        format!(
            "no Tideline at {}; `cargo xtask dist` builds it, TIDELINE_DIST names another folder",
            path.display()
        )
    })
}

/// Loads Tideline into this process's SQLite, once.
pub fn load_library(path: &Path) -> Result<()> {
    // The connection that loads it stays open: closing it could unload the library.
    static LOADER: OnceLock<std::result::Result<std::sync::Mutex<Connection>, String>> = OnceLock::new();
    let loaded = LOADER.get_or_init(|| {
        let load = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_in_memory()?;
            {
                // SAFETY: no SQL of strangers runs on this connection while loading is allowed.
                let _guard = unsafe { LoadExtensionGuard::new(&connection)? };
                // SAFETY: the library is this project's product; its entry point keeps SQLite's contract.
                unsafe { connection.load_extension(path, None::<&str>)? };
            }
            Ok(connection)
        };
        load().map(std::sync::Mutex::new).map_err(|error| error.to_string())
    });
    loaded.as_ref().map(|_| ()).map_err(|error| anyhow!("load {}: {error}", path.display()))
}

/// A path as a URI has it.
fn escape(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} isn't UTF-8", path.display()))?;
    Ok(text.replace('%', "%25").replace('?', "%3f").replace('#', "%23"))
}
