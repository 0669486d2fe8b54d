//! Full names of databases.
//!
//! With `cache=shared` SQLite joins an open database whose full name is the same, and opens nothing: what the second
//! connection asked for by URI parameters would go unseen. So a name with such parameters becomes another name of the
//! same file.

use std::ffi::{CStr, c_char, c_int};

use libsqlite3_sys as ffi;

use crate::params;
use crate::shim::{guard, host};

/// What is put before a file's name to make it another name of the same file.
const APART: &[u8] = b"./";

/// # Safety
/// SQLite's contract for `xFullPathname`.
pub(super) unsafe extern "C" fn x_full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    guard(ffi::SQLITE_CANTOPEN, || {
        // SAFETY: the arguments are SQLite's, the VFS is the one that they are meant for.
        let code = unsafe {
            match (*host()).xFullPathname {
                Some(method) => method(host(), name, room, out),
                None => return ffi::SQLITE_CANTOPEN,
            }
        };
        // Anything but an error: the name of a symbolic link is answered with a code of its own.
        if code & 0xff != ffi::SQLITE_OK || !sets_apart(&behind(name)) {
            return code;
        }
        // SAFETY: the host's method left a name that ends in a zero, in `room` bytes.
        let full = unsafe { CStr::from_ptr(out) }.to_bytes();
        let file = full.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let len = full.len();
        if len + APART.len() >= usize::try_from(room).unwrap_or(0) {
            return ffi::SQLITE_CANTOPEN;
        }
        // SAFETY: there is room for the bytes that are put in, and for the zero, which moves along.
        unsafe {
            let at = out.add(file);
            std::ptr::copy(at, at.add(APART.len()), len - file + 1);
            std::ptr::copy_nonoverlapping(APART.as_ptr().cast(), at, APART.len());
        }
        code
    })
}

/// True if `parameters` (names and values, each ended by a zero; an empty name ends them) hold one that a connection
/// without it mustn't share its pages with. Behind a name that isn't SQLite's there is whatever the memory holds: what
/// doesn't read like parameters, with one of SQLite's own among them, is none.
fn sets_apart(parameters: &[u8]) -> bool {
    let mut texts = texts(parameters).map(std::str::from_utf8);
    let mut pairs = Vec::new();
    loop {
        match (texts.next(), texts.next()) {
            (Some(Ok("")), _) => break,
            (Some(Ok(name)), Some(Ok(value)))
                if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') =>
            {
                pairs.push((name, value));
            }
            _ => return false,
        }
    }
    pairs.iter().any(|(name, _)| params::is_sqlites(name)) && params::check(pairs.into_iter()).is_err()
}

/// The texts in `bytes` that end with a zero; what no zero ends was cut short.
fn texts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut texts = bytes.split(|&byte| byte == 0).peekable();
    std::iter::from_fn(move || texts.next().filter(|_| texts.peek().is_some()))
}

/// The bytes behind the zero that ends `name`, where SQLite's pager puts the parameters.
///
/// Another VFS that stands before this one may pass a name with nothing behind it, so the kernel is asked for them:
/// it reads no more than there is.
#[cfg(target_os = "linux")]
fn behind(name: *const c_char) -> Vec<u8> {
    use nix::sys::uio::{RemoteIoVec, process_vm_readv};
    use std::io::IoSliceMut;

    /// More parameters than most have, and than anybody has.
    const USUAL: usize = 256;
    const MOST: usize = 8192;
    /// No page is smaller.
    const PAGE: usize = 4096;
    // SAFETY: the name ends in a zero.
    let begin = name as usize + unsafe { CStr::from_ptr(name) }.count_bytes() + 1;
    let read = |most: usize| {
        let mut bytes = vec![0; most];
        let mut parts = Vec::new();
        let (mut base, end) = (begin, begin + most);
        while base < end {
            let len = (PAGE - base % PAGE).min(end - base);
            parts.push(RemoteIoVec { base, len });
            base += len;
        }
        // Where this isn't allowed, parameters behind `cache=shared` go unseen.
        let got = process_vm_readv(nix::unistd::Pid::this(), &mut [IoSliceMut::new(&mut bytes)], &parts);
        bytes.truncate(got.unwrap_or(0));
        bytes
    };
    let usual = read(USUAL);
    // They end with an empty name; a value may be empty as well.
    let ends = texts(&usual).step_by(2).any(<[u8]>::is_empty);
    if ends || usual.len() < USUAL { usual } else { read(MOST) }
}

#[cfg(not(target_os = "linux"))]
fn behind(_name: *const c_char) -> Vec<u8> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::{behind, sets_apart};

    #[test]
    fn parameters_that_change_what_is_read_set_apart() {
        let all = |texts: &[&str]| sets_apart(&[texts.join("\0").as_bytes(), b"\0\0"].concat());
        assert!(!sets_apart(b""));
        assert!(!all(&["", "at", "7"]));
        assert!(!all(&["vfs", "tideline", "cache", "shared", "", "at", "7"]));
        assert!(all(&["cache", "shared", "at", "7"]));
        assert!(all(&["nolock", "1"]));
        assert!(!all(&["nolock", "0"]));
        assert!(all(&["vfs", "tideline", "colour", ""]));
        assert!(all(&["cache", "shared", "psow", "", "at", "7"]), "behind an empty value");
        assert!(!sets_apart(b"cache\0shared\0at\0x"), "cut short");
        assert!(!all(&["colour", "red"]), "nothing that SQLite knows");
        assert!(!all(&["cache", "shared", "\u{1}\u{2}", "7"]), "no name");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_behind_a_name_is_read_and_no_more() {
        let text = b"name\0key\0value\0\0";
        assert!(behind(text.as_ptr().cast()).starts_with(&text[5..]));
        let long = [b"name\0psow\0\0key\0", &[b'x'; 300][..], b"\0at\x007\0\0"].concat();
        assert!(behind(long.as_ptr().cast()).starts_with(&long[5..]), "behind an empty value");
        // The last bytes before a page that can't be read.
        let mut map = memmap2::MmapMut::map_anon(8192).expect("two pages");
        map[4091..4096].copy_from_slice(b"name\0");
        // SAFETY: the second page is the test's own, and isn't read.
        unsafe { libc::mprotect(map.as_mut_ptr().add(4096).cast(), 4096, libc::PROT_NONE) };
        assert_eq!(behind(map[4091..].as_ptr().cast()), b"");
    }
}
