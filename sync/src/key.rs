//! The key of an encrypted remote: where a host has it, and the object that tells a wrong one from a place with nothing.

use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tideline_journal::{Code, Error, Result, random_id};

use crate::chain::{HINT, waymark};
use crate::hex;
use crate::manifest::{VERSION, name};
use crate::objects::{Created, Objects};
use crate::seal::{Id, Master, Seal};
use crate::settings::Settings;

/// The one object that isn't encrypted, at an encrypted remote.
const KEY: &str = "key";
/// It isn't longer, in bytes.
const KEY_LIMIT: u64 = 4096;
/// No file with a key is longer, in bytes.
const FILE_LIMIT: u64 = 4096;

/// What the object says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    tideline: u32,
    /// Random: no two remotes have the same names, whatever their keys are.
    #[serde(with = "hex")]
    id: Id,
    #[serde(with = "hex")]
    check: [u8; 32],
}

/// The key that a remote's settings tell of, read where it is now; `None` if they tell of none.
///
/// # Errors
/// `Missing`, `Denied` and `Io` where it can't be read; `Argument` for what isn't a key. What was read is never told.
pub(crate) fn master(settings: &Settings) -> Result<Option<Master>> {
    let (text, place) = if let Some(path) = settings.text("key_file") {
        (read(Path::new(path))?, format!("the file {path:?}"))
    } else if let Some(variable) = settings.text("key_env") {
        let value = std::env::var_os(variable).ok_or_else(|| {
            let text = format!(
                "the environment variable {variable:?}, with the key of the remote, isn't set; set it, or name another with json_object('key_env', …)"
            );
            Error::new(Code::Missing, text)
        })?;
        (value.into_encoded_bytes(), format!("the environment variable {variable:?}"))
    } else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&text).unwrap_or_default();
    hex::parse(&text.trim().to_ascii_lowercase()).map(Some).ok_or_else(|| {
        let text =
            format!("{place} has no key: that is 64 hexadecimal digits; make one with openssl rand -hex 32");
        Error::new(Code::Argument, text)
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path);
    opened.and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut bytes)).map_err(|e| {
        let (code, remedy) = match e.kind() {
            std::io::ErrorKind::NotFound => {
                (Code::Missing, "put it there, or name another with json_object('key_file', …)")
            }
            std::io::ErrorKind::PermissionDenied => (Code::Denied, "give this user the right to read it"),
            std::io::ErrorKind::IsADirectory
            | std::io::ErrorKind::NotADirectory
            | std::io::ErrorKind::InvalidFilename => {
                (Code::Argument, "give the path of a file that has the key")
            }
            _ => (Code::Io, "give the path of a file that has the key"),
        };
        let text = format!("the file {path:?}, with the key of the remote, can't be read: {e}; {remedy}");
        Error::new(code, text)
    })?;
    Ok(bytes)
}

fn decode(objects: &Objects<'_>, bytes: &[u8]) -> Result<Line> {
    #[derive(Deserialize)]
    struct Version {
        tideline: u32,
    }
    let damaged = |_| {
        let text = format!("{KEY} of {} can't be read; put it back as it was", objects.url());
        Error::new(Code::Damaged, text)
    };
    let Version { tideline } = serde_json::from_slice(bytes).map_err(damaged)?;
    if tideline != VERSION {
        let text = format!(
            "{KEY} of {} is of format {tideline}, newer than this version; use that one",
            objects.url()
        );
        return Err(Error::new(Code::Format, text));
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

fn gone(objects: &Objects<'_>) -> Error {
    let text = format!(
        "{} has no object {KEY}: nothing was pushed there with a key, or it was removed; put it back, or begin anew there with tide_remote(name, NULL), then tide_remote(name, url, options)",
        objects.url()
    );
    Error::new(Code::Missing, text)
}

/// The names and keys of the remote that has `objects`, which are seen as they are stored. Where there is nothing yet,
/// and `begin` says so, it is an encrypted one from now on.
///
/// # Errors
/// `Denied` of another key than the remote's; `Argument` where a database is that isn't encrypted; `Missing` where
/// nothing is, without `begin`; `Damaged`, `Format`, `Offline`.
pub(crate) fn unlock(objects: &Objects<'_>, master: &Master, begin: bool) -> Result<Seal> {
    if let Some(bytes) = objects.get(KEY, KEY_LIMIT)? {
        return fitting(objects, master, &bytes);
    }
    for plain in [name(1), waymark(1), HINT.to_owned()] {
        if objects.length(&plain)?.is_some() {
            let text = format!(
                "{} holds a database that isn't encrypted; give another place to the one that is to be, or no key",
                objects.url()
            );
            return Err(Error::new(Code::Argument, text));
        }
    }
    if !begin {
        return Err(gone(objects));
    }
    let seal = Seal::new(master, random_id()?);
    let line = Line { tideline: VERSION, id: *seal.id(), check: *seal.check() };
    let mut text = serde_json::to_string(&line)
        .map_err(|e| Error::new(Code::Io, format!("{KEY} can't be written: {e}; report this as a bug")))?;
    text.push('\n');
    let created = objects.create(KEY, Bytes::from(text))?;
    if created == Created::New {
        return Ok(seal);
    }
    // Somebody else was faster, or no answer came: what is there decides.
    match (objects.get(KEY, KEY_LIMIT)?, created) {
        (Some(bytes), _) => fitting(objects, master, &bytes),
        (None, Created::Unclear(why)) => {
            let text =
                format!("creating {KEY} of {}: {why}; try again when it can be reached", objects.url());
            Err(Error::new(Code::Offline, text))
        }
        (None, _) => {
            let text = format!(
                "{KEY} of {} is said to be there, and not to be; try again when it can be reached",
                objects.url()
            );
            Err(Error::new(Code::Offline, text))
        }
    }
}

fn fitting(objects: &Objects<'_>, master: &Master, bytes: &[u8]) -> Result<Seal> {
    let line = decode(objects, bytes)?;
    let seal = Seal::new(master, line.id);
    if *seal.check() == line.check { Ok(seal) } else { Err(another(objects)) }
}

fn another(objects: &Objects<'_>) -> Error {
    let text = format!(
        "the key that was given isn't the one that {} is encrypted with; give that one with json_object('key_file', …) or json_object('key_env', …)",
        objects.url()
    );
    Error::new(Code::Denied, text)
}

/// Makes sure that where nothing was found nothing is: it could be there under other names.
///
/// # Errors
/// `Denied` where it is encrypted, and no key was given, or another has begun anew there; `Missing` where it was
/// encrypted, and isn't any more.
pub(crate) fn nothing_hidden(objects: &Objects<'_>) -> Result<()> {
    let found = objects.get_bare(KEY, KEY_LIMIT)?;
    match (found, objects.seal()) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(gone(objects)),
        (Some(bytes), Some(seal)) => {
            let line = decode(objects, &bytes)?;
            let same = (line.id, line.check) == (*seal.id(), *seal.check());
            if same { Ok(()) } else { Err(another(objects)) }
        }
        (Some(_), None) => {
            let text = format!(
                "{} is encrypted; give its key with json_object('key_file', …) or json_object('key_env', …)",
                objects.url()
            );
            Err(Error::new(Code::Denied, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Kind;
    use crate::settings::Given;
    use serde_json::json;

    fn given(options: serde_json::Value) -> Settings {
        Given::read(options.as_object().unwrap(), Kind::File).unwrap().settings
    }

    #[test]
    fn a_key_is_64_digits_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let settings = given(json!({ "key_file": path.to_str().unwrap() }));
        let refused = |code| {
            let refused = master(&settings).unwrap_err();
            assert_eq!(refused.code(), code, "{refused}");
            let text = refused.to_string();
            assert!(text.contains(path.to_str().unwrap()) && text.contains(';'), "{text}");
            text
        };
        refused(Code::Missing);
        let digits = "0123456789abcdefABCDEF".to_owned() + &"5".repeat(42);
        let key = hex::parse(&digits.to_ascii_lowercase()).unwrap();
        for around in [("", ""), ("", "\n"), (" \t", " \r\n\n")] {
            std::fs::write(&path, format!("{}{digits}{}", around.0, around.1)).unwrap();
            assert_eq!(master(&settings).unwrap(), Some(key));
        }
        for wrong in
            ["", &digits[1..], &format!("{digits}0"), &format!("{digits}\n{digits}"), &"g".repeat(64)]
        {
            std::fs::write(&path, wrong).unwrap();
            let text = refused(Code::Argument);
            assert!(wrong.is_empty() || !text.contains(wrong), "{text}");
        }
        std::fs::write(&path, [0xff; 64]).unwrap();
        refused(Code::Argument);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        refused(Code::Argument);
    }

    #[test]
    fn without_a_setting_there_is_none_and_a_variable_must_be_set() {
        assert_eq!(master(&Settings::default()).unwrap(), None);
        let refused = master(&given(json!({"key_env": "TIDELINE_NO_SUCH_VARIABLE"}))).unwrap_err();
        assert_eq!(refused.code(), Code::Missing);
        assert!(refused.to_string().contains("TIDELINE_NO_SUCH_VARIABLE"), "{refused}");
        // One that is there and has another content.
        let refused = master(&given(json!({"key_env": "PATH"}))).unwrap_err();
        assert_eq!(refused.code(), Code::Argument);
        assert!(!refused.to_string().contains("bin"), "{refused}");
    }
}
