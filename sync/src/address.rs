//! The object store behind a URL.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tideline_journal::{Code, Error, Result};
use url::Url;

/// Where a remote is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    url: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A folder.
    File(PathBuf),
}

impl Address {
    /// What `text` names.
    ///
    /// # Errors
    /// `Argument` if it is no URL, or of a store that isn't known.
    pub fn parse(text: &str) -> Result<Address> {
        let wrong = |why: &str| {
            Error::new(Code::Argument, format!("{text:?} {why}; give one like file:///backups/app"))
        };
        let url = Url::parse(text).map_err(|e| wrong(&format!("is no URL ({e})")))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("has something behind its path"));
        }
        let kind = match url.scheme() {
            "file" if url.host_str().is_none_or(str::is_empty) => {
                let path = url.to_file_path().map_err(|()| wrong("names no path of this machine"))?;
                if path.parent().is_none() {
                    return Err(wrong("names the root folder"));
                }
                Kind::File(path)
            }
            "file" => return Err(wrong("names another machine")),
            "s3" | "s3a" | "gs" | "az" | "abfs" | "http" | "https" => {
                return Err(wrong("names a store that this version doesn't reach yet"));
            }
            _ => return Err(wrong("names no object store")),
        };
        Ok(Address { url: text.to_owned(), kind })
    }

    /// The URL, as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The word for its kind in `tide_remotes`.
    pub fn kind(&self) -> &'static str {
        match self.kind {
            Kind::File(_) => "file",
        }
    }

    /// Makes what has to be there before anything can be put there: a folder.
    ///
    /// # Errors
    /// `Denied`, `Io`.
    pub fn prepare(&self) -> Result<()> {
        let Kind::File(path) = &self.kind;
        std::fs::create_dir_all(path).map_err(|e| {
            let code = match e.kind() {
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Code::Denied,
                _ => Code::Io,
            };
            Error::new(code, format!("{} can't be made: {e}; make it, or give another URL", path.display()))
        })
    }

    /// The object store.
    ///
    /// # Errors
    /// `Offline` if it isn't there.
    pub fn open(&self) -> Result<Arc<dyn ObjectStore>> {
        let Kind::File(path) = &self.kind;
        let gone = |why: String| {
            Error::new(
                Code::Offline,
                format!(
                    "{} can't be reached: {why}; mount or make {}, then try again",
                    self.url,
                    path.display()
                ),
            )
        };
        if !path.is_dir() {
            return Err(gone("there is no such folder".into()));
        }
        let store = LocalFileSystem::new_with_prefix(path).map_err(|e| gone(e.to_string()))?;
        // What it acknowledges is on the disk.
        Ok(Arc::new(store.with_fsync(true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_this_machine_are_known() {
        let folder = Address::parse("file:///backups/my%20app").unwrap();
        assert_eq!((folder.kind(), folder.url()), ("file", "file:///backups/my%20app"));
        assert_eq!(folder.kind, Kind::File("/backups/my app".into()));
        let codes = [
            "",
            "backups",
            "file:///",
            "file://server/backups",
            "ftp://a/b",
            "s3://bucket/a",
            "file:///a?b=1",
        ];
        for text in codes {
            let refused = Address::parse(text).unwrap_err();
            assert_eq!(refused.code(), Code::Argument, "{text}");
            assert!(refused.to_string().contains(&format!("{text:?}")), "{refused}");
        }
    }
}
