//! The `parameters` target: URI parameters are read as far as they go, and refused where they should be.
//!
//! An input is a plan: parameters, and how their bytes lie in memory behind a file's name, whose last byte is the last
//! before a page that can't be read.
//!
//! 1. `xFullPathname` reads nothing that isn't there, and writes nothing beyond its room. It answers what the host's VFS
//!    does; the name is set apart (`./` before the file's own) if the parameters, as far as they are whole, have one of
//!    SQLite's among them and one that would be refused.
//! 2. `xOpen` with the same parameters, laid out by SQLite, refuses exactly those that aren't SQLite's, and any `nolock`
//!    that isn't off as SQLite reads it.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use libsqlite3_sys as ffi;
use memmap2::MmapMut;
use tideline_journal::{Code, Error};

use crate::place;
use crate::value::{self, pick};

/// Parameters of a plan.
const PARAMETERS: usize = 24;
/// Readable bytes before those that can't be read.
const ROOM: usize = 16 << 10;
const PAGE: usize = 4096;
/// Most bytes behind a name that are looked at.
const MOST: usize = 8192;
/// Of the error that says that nothing was refused.
const NOTHING: &str = "nothing was refused";

/// Names and values that mean something somewhere, and some that nearly do.
const WORDS: [&str; 32] = [
    "vfs",
    "mode",
    "cache",
    "psow",
    "nolock",
    "immutable",
    "modeof",
    "hexkey",
    "key",
    "at",
    "as_of",
    "branch",
    "",
    "0",
    "1",
    "on",
    "off",
    "ON",
    "True",
    "yes",
    "no",
    "NO",
    "extra",
    "full",
    "2",
    "256",
    "00",
    "0x1",
    "-1",
    "1x",
    "ro",
    "Vfs",
];

#[derive(Arbitrary, Debug)]
struct Plan {
    parameters: Vec<(Word, Word)>,
    /// Zeros behind the last; two end the parameters.
    zeros: u8,
    /// Bytes that are readable behind them.
    rest: Vec<u8>,
    /// The name is so long.
    name: u8,
    /// Room for the answer.
    room: u16,
}

#[derive(Arbitrary, Debug)]
enum Word {
    Known(u8),
    Text(String),
    Bytes(Vec<u8>),
    Long(u16),
}

impl Word {
    /// Its bytes, without zeros.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = match self {
            Word::Known(n) => pick(&WORDS, *n).as_bytes().to_vec(),
            Word::Text(text) => text.as_bytes().to_vec(),
            Word::Bytes(bytes) => bytes.clone(),
            Word::Long(len) => vec![b'x'; usize::from(len % 1024)],
        };
        bytes.retain(|&byte| byte != 0);
        bytes
    }
}

/// The plan that an input stands for, for reading.
pub fn describe(data: &[u8]) -> String {
    value::describe::<Plan>(data)
}

/// Runs one input; returns what happened, in short.
///
/// # Panics
/// Where the VFS doesn't do what it should.
pub fn run(data: &[u8]) -> String {
    let Ok(plan) = Plan::arbitrary_take_rest(Unstructured::new(data)) else { return String::new() };
    let words: Vec<_> =
        plan.parameters.iter().take(PARAMETERS).map(|(name, value)| (name.bytes(), value.bytes())).collect();
    let apart = full_name(&plan, &words);
    let refused = open(&words);
    format!("{} parameters, apart: {apart}, refused: {refused}", words.len())
}

/// Asks for the full name. Returns whether it is set apart.
fn full_name(plan: &Plan, words: &[(Vec<u8>, Vec<u8>)]) -> bool {
    let mut behind = Vec::new();
    for (name, value) in words {
        behind.extend_from_slice(name);
        behind.push(0);
        behind.extend_from_slice(value);
        behind.push(0);
    }
    behind.pop();
    behind.resize(behind.len() + usize::from(plan.zeros % 4), 0);
    behind.extend_from_slice(&plan.rest);
    behind.truncate(ROOM - 300);
    let mut name = vec![b'n'; usize::from(plan.name) + 1];
    name[..1].copy_from_slice(b"/");
    name.push(0);
    let before = Guarded::new(&[&name[..], &behind].concat());
    let name = before.end(name.len() + behind.len()).cast_const().cast::<c_char>();
    let room = usize::from(plan.room) % 600;
    let (own, host) = vfs();
    let answer = |vfs: *mut ffi::sqlite3_vfs| {
        let out = Guarded::new(&[]);
        let at = out.end(room).cast::<c_char>();
        // SAFETY: the name ends in a zero, and there is as much room as is said.
        unsafe {
            let method = (*vfs).xFullPathname.expect("a VFS has it");
            let code = method(vfs, name, c_int::try_from(room).expect("it is small"), at);
            let full = (code & 0xff == ffi::SQLITE_OK).then(|| CStr::from_ptr(at).to_bytes().to_vec());
            (code, full)
        }
    };
    // The host's writes one byte where there is room for none.
    if room == 0 {
        return false;
    }
    let ((code, full), (plain_code, plain)) = (answer(own), answer(host));
    let Some(plain) = plain else {
        assert_eq!(code, plain_code, "the host refuses it");
        return false;
    };
    let file = plain.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let expected = [&plain[..file], b"./", &plain[file..]].concat();
    if !sets_apart(&behind) {
        assert_eq!((code, full), (plain_code, Some(plain)), "nothing sets it apart");
        return false;
    }
    if expected.len() >= room {
        assert_eq!(code, ffi::SQLITE_CANTOPEN, "there is no room for the name");
    } else {
        assert_eq!((code, full), (plain_code, Some(expected)), "it is set apart");
    }
    true
}

/// True if these bytes, as far as they are whole, are parameters that set a name apart.
fn sets_apart(behind: &[u8]) -> bool {
    let mut rest = &behind[..behind.len().min(MOST)];
    let mut text = || {
        let end = rest.iter().position(|&byte| byte == 0)?;
        let (text, more) = rest.split_at(end);
        rest = &more[1..];
        Some(text)
    };
    let (mut known, mut refused) = (false, false);
    loop {
        // What is cut short is none.
        let Some(name) = text() else { return false };
        if name.is_empty() {
            break;
        }
        let Some(value) = text() else { return false };
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        if !name.iter().all(plain) || std::str::from_utf8(value).is_err() {
            return false;
        }
        known |= is_sqlites(name);
        refused |= is_refused(name, value);
    }
    known && refused
}

fn is_sqlites(name: &[u8]) -> bool {
    WORDS[..9].iter().any(|word| word.as_bytes() == name)
}

/// True for a parameter that a database can't be opened with.
fn is_refused(name: &[u8], value: &[u8]) -> bool {
    let off = ["", "0", "no", "off", "false"].iter().any(|off| value.eq_ignore_ascii_case(off.as_bytes()));
    !is_sqlites(name) || name == b"nolock" && !off
}

/// Opens a database with parameters. Returns whether it was refused.
fn open(words: &[(Vec<u8>, Vec<u8>)]) -> bool {
    // An empty name ends them.
    let words: Vec<_> = words.iter().take_while(|(name, _)| !name.is_empty()).collect();
    let text = |bytes: &[u8]| CString::new(bytes).expect("no zeros");
    let texts: Vec<CString> = words.iter().flat_map(|(name, value)| [text(name), text(value)]).collect();
    let mut pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
    let path = place::folder().join("parameters.db");
    let name =
        |suffix: &str| text([path.as_os_str().as_encoded_bytes(), suffix.as_bytes()].concat().as_slice());
    let (own, _) = vfs();
    // Of parameters with one name the first counts, also for SQLite.
    let expected = words.iter().any(|(name, _)| {
        let value = words.iter().find(|(other, _)| other == name).map_or(&[][..], |(_, value)| value);
        // Names and values that are no text are read as such; none of them is one of those that are known.
        is_refused(name, value)
    });
    tideline_vfs::note(&Error::new(Code::Argument, NOTHING));
    // SAFETY: the names end in zeros, the pointers are as many as is said, and the file has the room that the VFS wants.
    let (code, nolock) = unsafe {
        let count = c_int::try_from(words.len()).expect("there are few");
        let (journal, wal) = (name("-journal"), name("-wal"));
        let filename = ffi::sqlite3_create_filename(
            name("").as_ptr(),
            journal.as_ptr(),
            wal.as_ptr(),
            count,
            pointers.as_mut_ptr(),
        );
        let flags = ffi::SQLITE_OPEN_MAIN_DB
            | ffi::SQLITE_OPEN_READWRITE
            | ffi::SQLITE_OPEN_CREATE
            | ffi::SQLITE_OPEN_URI;
        let size = usize::try_from((*own).szOsFile).expect("it has a size");
        let mut memory = vec![0u64; size.div_ceil(8)];
        let file = memory.as_mut_ptr().cast::<ffi::sqlite3_file>();
        let opener = (*own).xOpen.expect("a VFS has it");
        let code = opener(own, filename, file, flags, ptr::null_mut());
        let nolock = ffi::sqlite3_uri_boolean(filename, c"nolock".as_ptr(), 0) != 0;
        let methods = (*file).pMethods;
        if !methods.is_null() {
            let close = (*methods).xClose.expect("a file has it");
            assert_eq!(close(file), ffi::SQLITE_OK);
        }
        ffi::sqlite3_free_filename(filename);
        (code, nolock)
    };
    assert_eq!(code, ffi::SQLITE_OK, "{}", tideline_vfs::last_error());
    let said = tideline_vfs::last_error();
    let refused = !said.contains(NOTHING);
    assert_eq!(refused, expected, "{said}");
    assert!(!refused || said.starts_with("tideline: ARGUMENT: ") && said.contains("; "), "{said}");
    assert!(refused || !nolock, "SQLite takes no locks, and it wasn't refused");
    refused
}

/// Our VFS, and the host's.
fn vfs() -> (*mut ffi::sqlite3_vfs, *mut ffi::sqlite3_vfs) {
    static HOST: LazyLock<usize> = LazyLock::new(|| {
        // SAFETY: a VFS that is found stays.
        unsafe {
            ffi::sqlite3_initialize();
            let host = ffi::sqlite3_vfs_find(ptr::null());
            tideline_vfs::register(false).expect("there is a host");
            host as usize
        }
    });
    let host = *HOST as *mut ffi::sqlite3_vfs;
    // SAFETY: as above.
    (unsafe { ffi::sqlite3_vfs_find(tideline_vfs::VFS_NAME.as_ptr()) }, host)
}

/// Memory whose end can't be read beyond.
struct Guarded {
    map: MmapMut,
}

impl Guarded {
    /// With these bytes at its end.
    fn new(bytes: &[u8]) -> Guarded {
        let mut map = MmapMut::map_anon(ROOM + PAGE).expect("there is memory");
        map[ROOM - bytes.len()..ROOM].copy_from_slice(bytes);
        // SAFETY: the page is the map's own, and nobody refers to it.
        let closed = unsafe { libc::mprotect(map.as_mut_ptr().add(ROOM).cast(), PAGE, libc::PROT_NONE) };
        assert_eq!(closed, 0, "the page is there");
        Guarded { map }
    }

    /// The last `len` bytes that can be read.
    fn end(&self, len: usize) -> *mut u8 {
        self.map[ROOM - len..].as_ptr().cast_mut()
    }
}
