//! The object store behind a URL.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use std::time::Duration;
use tideline_journal::{Code, Error, Result};
use url::Url;

use crate::profile;
use crate::settings::{Given, Secrets, Settings};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a request is made again that failed for a reason that may pass.
const RETRIES: usize = 3;

/// What a remote is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    File,
    /// Amazon S3, and what speaks its language.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure's blobs.
    Azure,
}

impl Kind {
    /// Its word in `tide_remotes`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::S3 => "s3",
            Kind::Gcs => "gcs",
            Kind::Azure => "azure",
        }
    }
}

/// Where a remote is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    text: String,
    kind: Kind,
    url: Url,
}

impl Address {
    /// What `text` names.
    ///
    /// # Errors
    /// `Argument` if it is no URL, or of a store that isn't known.
    pub fn parse(text: &str) -> Result<Address> {
        let wrong = |why: &str| {
            let text = shown(&without_secrets(text));
            let remedy =
                "give one like file:///backups/app, s3://bucket/app, gs://bucket/app or az://container/app";
            Error::new(Code::Argument, format!("{text:?} {why}; {remedy}"))
        };
        let url = Url::parse(text).map_err(|e| wrong(&format!("is no URL ({e})")))?;
        // What parses it leaves them out.
        if text.trim() != text || text.contains(char::is_control) {
            return Err(wrong("has blanks around it, or a character in it that can't be seen"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("has something behind its path"));
        }
        let kind = match url.scheme() {
            "file" => Kind::File,
            "s3" | "s3a" => Kind::S3,
            "gs" => Kind::Gcs,
            "az" | "abfs" | "abfss" => Kind::Azure,
            "http" | "https" => {
                return Err(wrong(
                    "names no kind of store: say s3:, and where it is with json_object('endpoint', …)",
                ));
            }
            _ => return Err(wrong("names no object store")),
        };
        if url.password().is_some() || (!url.username().is_empty() && kind != Kind::Azure) {
            return Err(wrong(
                "has credentials in it, which would be kept: set them in the environment, or as options",
            ));
        }
        if kind == Kind::File {
            // What parses it takes another one for a path from the root.
            if text.split_once(':').is_none_or(|(_, path)| !path.starts_with('/')) {
                return Err(wrong("names a path that doesn't begin at the root"));
            }
            if !url.host_str().is_none_or(str::is_empty) {
                return Err(wrong("names another machine"));
            }
            let path = url.to_file_path().map_err(|()| wrong("names no path of this machine"))?;
            if path.to_str().is_none() {
                return Err(wrong("names a path that isn't UTF-8"));
            }
            if path.parent().is_none() {
                return Err(wrong("names the root folder"));
            }
            if path.as_os_str().as_encoded_bytes().contains(&0) {
                return Err(wrong("has a NUL in it"));
            }
        } else if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("names no bucket"));
        } else if url.port().is_some() {
            return Err(wrong(
                "has a port, which no bucket has: say where the store is with json_object('endpoint', …)",
            ));
        } else if Path::from_url_path(url.path()).is_err() {
            return Err(wrong("names no path that an object could have"));
        }
        Ok(Address { text: text.to_owned(), kind, url })
    }

    /// The URL, as it was given.
    pub fn url(&self) -> &str {
        &self.text
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The folder, of one that is a folder.
    fn folder(&self) -> Option<PathBuf> {
        (self.kind == Kind::File).then(|| self.url.to_file_path().ok()).flatten()
    }

    /// Makes what has to be there before anything can be put there: a folder. Nobody else may look into it, as the
    /// database may be as private; who shares it makes it himself.
    ///
    /// # Errors
    /// `Denied`, `Full`; `Argument` where no folder can be; `Io`.
    pub(crate) fn prepare(&self) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let Some(path) = self.folder() else { return Ok(()) };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|e| {
            use std::io::ErrorKind;
            let code = match e.kind() {
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Code::Denied,
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Code::Full,
                // A file is in its place, or above; or it can't be the name of any.
                ErrorKind::AlreadyExists | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => {
                    Code::Argument
                }
                _ => Code::Io,
            };
            let path = shown(&path.to_string_lossy());
            Error::new(code, format!("{path} can't be made: {e}; make it, or give another URL"))
        })
    }

    /// The object store.
    ///
    /// # Errors
    /// `Offline` of a folder that isn't there; `Argument` of settings that can't be.
    pub(crate) fn open(&self, given: &Given) -> Result<Arc<dyn ObjectStore>> {
        let Given { settings, secrets } = given;
        if self.kind != Kind::File {
            // Somebody else in this process may have chosen one already, which does as well.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let refused = |e: object_store::Error| {
            let text = format!("{} can't be used: {}; see to its options", self.text, printed(&e));
            Error::new(Code::Argument, text)
        };
        let bucket = || self.url.host_str().unwrap_or_default();
        let store: Arc<dyn ObjectStore> = match self.kind {
            Kind::File => return self.open_folder(),
            Kind::S3 => Arc::new(s3(settings, secrets)?.with_bucket_name(bucket()).build().map_err(refused)?),
            Kind::Gcs => {
                Arc::new(gcs(settings, secrets).with_bucket_name(bucket()).build().map_err(refused)?)
            }
            Kind::Azure => {
                let url = format!("{}://{}", self.url.scheme(), self.url.authority());
                Arc::new(azure(settings, secrets).with_url(url).build().map_err(refused)?)
            }
        };
        let prefix = Path::from_url_path(self.url.path()).map_err(|e| refused(e.into()))?;
        Ok(if prefix.as_ref().is_empty() { store } else { Arc::new(PrefixStore::new(store, prefix)) })
    }

    fn open_folder(&self) -> Result<Arc<dyn ObjectStore>> {
        let path = self.folder().unwrap_or_default();
        let gone = |why: String| {
            let remedy = format!("mount or make {}, then try again", path.display());
            Error::new(Code::Offline, format!("{} can't be reached: {why}; {remedy}", self.text))
        };
        match std::fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                let text = format!("{} can't be reached: {e}; see to the rights of its folders", self.text);
                return Err(Error::new(Code::Denied, text));
            }
            Ok(found) if found.is_dir() => {}
            _ => return Err(gone("there is no such folder".into())),
        }
        let store = LocalFileSystem::new_with_prefix(&path).map_err(|e| gone(e.to_string()))?;
        // What it acknowledges is on the disk.
        Ok(Arc::new(store.with_fsync(true)))
    }
}

fn s3(settings: &Settings, secrets: &Secrets) -> Result<AmazonS3Builder> {
    let given = ["access_key_id", "secret_access_key", "session_token"].map(|name| secrets.text(name));
    let profile = profile::wanted(settings.text("profile"), given[0].is_some())?.unwrap_or_default();
    // A key, its secret and its token are from one place: they don't go together with another's.
    let keys = match given {
        [Some(id), secret, token] => Some((id, secret.unwrap_or_default(), token)),
        _ => profile.keys(),
    };
    let mut builder = s3_of_environment(keys.is_none());
    if let Some((id, secret, token)) = keys {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        if let Some(token) = token {
            builder = builder.with_token(token);
        }
    }
    if let Some(region) = &profile.region {
        builder = builder.with_region(region);
    }
    if let Some(region) = settings.text("region") {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = settings.text("endpoint") {
        builder = builder.with_endpoint(endpoint);
    }
    if settings.flag("virtual_hosted_style") {
        builder = builder.with_virtual_hosted_style_request(true);
    }
    if settings.flag("anonymous") {
        builder = builder.with_skip_signature(true);
    }
    Ok(builder.with_client_options(client(settings)).with_retry(retry(settings)))
}

/// What the environment says, with its keys or without.
fn s3_of_environment(with_keys: bool) -> AmazonS3Builder {
    use AmazonS3ConfigKey::{AccessKeyId, SecretAccessKey, Token};
    let known = |(name, value): (OsString, OsString)| {
        let name = name.to_str().filter(|name| name.starts_with("AWS_"))?.to_ascii_lowercase();
        Some((name.parse::<AmazonS3ConfigKey>().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os()
        .filter_map(known)
        .filter(|(key, _)| with_keys || !matches!(key, AccessKeyId | SecretAccessKey | Token))
        .fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value))
}

fn gcs(settings: &Settings, secrets: &Secrets) -> GoogleCloudStorageBuilder {
    let mut builder = GoogleCloudStorageBuilder::from_env();
    let options = [
        (GoogleConfigKey::BaseUrl, settings.text("endpoint")),
        (GoogleConfigKey::ServiceAccount, settings.text("service_account")),
        (GoogleConfigKey::ServiceAccountKey, secrets.text("service_account_key")),
        (GoogleConfigKey::BearerToken, secrets.text("bearer_token")),
    ];
    for (key, value) in options {
        if let Some(value) = value {
            builder = builder.with_config(key, value);
        }
    }
    if settings.flag("anonymous") {
        builder = builder.with_skip_signature(true);
    }
    builder.with_client_options(client(settings)).with_retry(retry(settings))
}

fn azure(settings: &Settings, secrets: &Secrets) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::from_env();
    let options = [
        (AzureConfigKey::Endpoint, settings.text("endpoint")),
        (AzureConfigKey::AccountName, settings.text("account")),
        (AzureConfigKey::AccessKey, secrets.text("access_key")),
        (AzureConfigKey::SasKey, secrets.text("sas")),
        (AzureConfigKey::Token, secrets.text("bearer_token")),
    ];
    for (key, value) in options {
        if let Some(value) = value {
            builder = builder.with_config(key, value);
        }
    }
    if settings.flag("emulator") {
        builder = builder.with_use_emulator(true);
    }
    if settings.flag("anonymous") {
        builder = builder.with_skip_signature(true);
    }
    builder.with_client_options(client(settings)).with_retry(retry(settings))
}

fn client(settings: &Settings) -> ClientOptions {
    // Whoever gives such an endpoint means it.
    let plain = settings.text("endpoint").is_some_and(|endpoint| endpoint.starts_with("http://"));
    let from_environment = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|endpoint| endpoint.starts_with("http://")));
    ClientOptions::new()
        .with_timeout(settings.timeout())
        .with_connect_timeout(CONNECT.min(settings.timeout()))
        .with_allow_http(plain || from_environment || settings.flag("emulator"))
}

fn retry(settings: &Settings) -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: settings.timeout() * 2 }
}

/// An error's text, with those of its causes, without the queries of URLs: some have a signature in them.
pub(crate) fn printed(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let more = e.to_string();
        // Many repeat what caused them.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = e.source();
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    without_queries(&without_answers(&text))
}

/// Of an answer in XML its code and its message alone: some have what was signed in them, and with what.
fn without_answers(text: &str) -> String {
    let Some(begin) = text.find("<?xml").or_else(|| text.find("<Error>")) else { return text.to_owned() };
    let (before, answer) = text.split_at(begin);
    let part = |name: &str| {
        let (_, rest) = answer.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(part, _)| part)
    };
    let parts: Vec<&str> = ["Code", "Message"].into_iter().filter_map(part).collect();
    let behind = answer.rsplit_once("</Error>").map_or("", |(_, behind)| behind);
    format!("{before}{}{behind}", parts.join(": "))
}

/// What the system said of a folder's disk that it won't do: `Denied` or `Full`, and what to do then. Trying again helps
/// no more than where a store refuses.
pub(crate) fn disk_refused(error: &object_store::Error) -> Option<(Code, &'static str)> {
    use std::io::ErrorKind;
    let object_store::Error::Generic { store: "LocalFileSystem", .. } = error else { return None };
    let mut causes = std::iter::successors(std::error::Error::source(error), |&cause| cause.source());
    causes.find_map(|cause| match cause.downcast_ref::<std::io::Error>()?.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Some((
            Code::Denied,
            "see to the rights of the folder, and how its disk is mounted, then try again",
        )),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Some((Code::Full, "make room on the folder's disk, then try again"))
        }
        _ => None,
    })
}

/// Whether the text of an error, as printed, says that there is no bucket: an object that isn't there is another matter.
pub(crate) fn lacks_bucket(text: &str) -> bool {
    // S3 and Google's, Azure's.
    ["NoSuchBucket", "ContainerNotFound"].iter().any(|code| text.contains(code))
}

/// Whether it says that the credentials are none, or none any more. Some stores answer so with what stands for a request
/// that was wrong (400), and not for one that isn't allowed.
pub(crate) fn refuses_credentials(text: &str) -> bool {
    let codes = [
        // S3's, and those of the services that S3's credentials are from.
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "UnrecognizedClient",
        "RequestExpired",
        // Of those who ask for a token with what they were given once: Google's, Azure's.
        "invalid_grant",
        "invalid_client",
        "AuthenticationFailed",
    ];
    codes.iter().any(|code| text.contains(code))
}

/// Whether it tells of a request for the credentials that a cloud gives its machines.
pub(crate) fn asks_the_machine(text: &str) -> bool {
    ["/latest/api/token", "/latest/meta-data/", "/computeMetadata/", "/metadata/identity/"]
        .iter()
        .any(|path| text.contains(path))
}

fn without_queries(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let end = rest[at..]
            .find(|c: char| c.is_whitespace() || "\"'()<>,;".contains(c))
            .map_or(rest.len(), |n| at + n);
        let url = &rest[..end];
        out.push_str(url.split_once('?').map_or(url, |(before, _)| before));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// What somebody gave for a name or a URL, for a message. If it is neither, it may be a key, or what has one in it.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 100;
    if text.trim_start().starts_with(['{', '[']) {
        return "{…}".to_owned();
    }
    match text.char_indices().nth(MOST) {
        // Of a URL this is the least that says which one.
        Some(_) => text.chars().take(MOST / 5).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// A URL for a message: without what may be credentials.
fn without_secrets(text: &str) -> String {
    let text = text.split_once('?').map_or(text, |(before, _)| before);
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://…{}", &text[..scheme], &text[at..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_of_stores_that_are_known() {
        let folder = Address::parse("file:///backups/my%20app").unwrap();
        assert_eq!((folder.kind(), folder.url()), (Kind::File, "file:///backups/my%20app"));
        assert_eq!(folder.folder(), Some("/backups/my app".into()));
        for (text, kind) in [
            ("s3://bucket/a/b", Kind::S3),
            ("gs://bucket", Kind::Gcs),
            ("az://container/a", Kind::Azure),
            ("abfss://container@account.dfs.core.windows.net/a", Kind::Azure),
        ] {
            assert_eq!(Address::parse(text).unwrap().kind(), kind, "{text}");
        }
        let wrong = [
            "",
            "backups",
            "file:///",
            "file://server/backups",
            "ftp://a/b",
            "s3:///a",
            "https://s3.example/a",
            "s3://b/a?b=1",
            "file:///backups/a%00b",
            "file:///backups/a%ff",
            "file:backups",
            "file:",
            "FILE:backups/a",
            "file:\\backups",
            " file:///backups",
            "file:///back\nups",
            "s3://bucket:9000/a",
            "gs://bucket:80",
            "az://container:443/a",
            "s3://bucket/a%ff",
            "s3://bucket/a//b",
        ];
        for text in wrong {
            let refused = Address::parse(text).unwrap_err();
            assert_eq!(refused.code(), Code::Argument, "{text}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_is_an_argument() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), b"").unwrap();
        let longest = "a".repeat(256);
        for name in ["file", "file/below", &longest] {
            let url = Url::from_file_path(folder.path().join(name)).unwrap();
            let refused = Address::parse(url.as_str()).unwrap().prepare().unwrap_err();
            assert_eq!(refused.code(), Code::Argument, "{name}: {refused}");
        }
    }

    #[test]
    fn a_folder_that_is_made_is_for_its_owner_alone_and_one_that_is_there_stays_as_it_is() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            let path = folder.path().join(name);
            Address::parse(Url::from_file_path(&path).unwrap().as_str()).unwrap().prepare().unwrap();
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode("made/below"), mode("made")), (0o700, 0o700));
        let shared = folder.path().join("shared");
        std::fs::create_dir(&shared).unwrap();
        std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o775)).unwrap();
        assert_eq!(mode("shared"), 0o775);
    }

    #[test]
    fn what_a_disk_refuses_is_no_remote_that_is_away() {
        use std::io::ErrorKind;
        /// As object_store has it: the system's error is the cause of one of its own.
        #[derive(Debug)]
        struct Failed(std::io::Error);
        impl std::fmt::Display for Failed {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("it failed")
            }
        }
        impl std::error::Error for Failed {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let says = |kind: ErrorKind, store| {
            let source = Box::new(Failed(kind.into()));
            disk_refused(&object_store::Error::Generic { store, source }).map(|(code, _)| code)
        };
        let disk = "LocalFileSystem";
        assert_eq!(says(ErrorKind::PermissionDenied, disk), Some(Code::Denied));
        assert_eq!(says(ErrorKind::ReadOnlyFilesystem, disk), Some(Code::Denied));
        assert_eq!(says(ErrorKind::StorageFull, disk), Some(Code::Full));
        assert_eq!(says(ErrorKind::QuotaExceeded, disk), Some(Code::Full));
        assert_eq!(says(ErrorKind::TimedOut, disk), None);
        assert_eq!(says(ErrorKind::PermissionDenied, "S3"), None, "a firewall says so, too");
    }

    #[test]
    fn credentials_that_are_refused_are_told_from_a_remote_that_is_away() {
        let answers = [
            "Generic S3 error: Server returned non-2xx status code: 400 Bad Request: ExpiredToken: The provided token has expired.",
            "Client error with status 400 Bad Request: ExpiredTokenException: it has expired",
            "status 400: InvalidToken: The provided token is malformed or otherwise invalid.",
            "error performing token request: 400 Bad Request: {\"error\": \"invalid_grant\"}",
        ];
        for text in answers {
            assert!(refuses_credentials(text), "{text}");
        }
        for text in ["status 400: EntityTooLarge", "error sending request: operation timed out", ""] {
            assert!(!refuses_credentials(text), "{text}");
        }
    }

    #[test]
    fn what_may_be_secret_is_not_told() {
        for text in ["s3://key:hidden@bucket/a", "s3://bucket/a?sig=hidden", "x://key:hidden@b"] {
            let refused = Address::parse(text).unwrap_err().to_string();
            assert!(!refused.contains("hidden"), "{refused}");
        }
        let json = r#"{"type": "service_account", "private_key": "hidden"}"#;
        let long = format!("{}hidden", "x".repeat(200));
        for text in [json, &format!(" [{json}]"), &long, &format!("ftp://{long}")] {
            let refused = Address::parse(text).unwrap_err();
            assert_eq!(refused.code(), Code::Argument);
            let refused = refused.to_string();
            assert!(!refused.contains("hidden") && refused.len() < 300, "{refused}");
        }
        let answer = "refused: <?xml version=\"1.0\"?> <Error><Code>ExpiredToken</Code><Message>it has expired</Message><Token-0>hidden</Token-0></Error>; later";
        assert_eq!(without_answers(answer), "refused: ExpiredToken: it has expired; later");
        assert_eq!(without_answers("<Error><Code>A</Code><Token>hidden"), "A");
        let error = "no answer from https://a/b?sig=hidden&x=1 (twice: http://c?hidden), why?";
        assert_eq!(without_queries(error), "no answer from https://a/b (twice: http://c), why?");
    }
}
