//! What is said of a remote beside its URL: what is kept with the store, and what is secret and is never.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tideline_journal::{Code, Error, Result, Retention};

use crate::address::Kind;

/// How long a request may take where nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// MiB of the journal that are kept for a remote that hasn't got them yet, where nobody says otherwise.
const SPOOL_MIB: u64 = 256;
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// An option of a remote.
struct Known {
    name: &'static str,
    kinds: &'static [Kind],
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Text,
    Flag,
    Time,
    /// How much history stays: of some time, of some LSNs, or none.
    History,
    /// The path of a folder, from the root.
    Folder,
    /// The path of a file, from the root.
    File,
    /// A number from this one on.
    From(u64),
    /// Text that is never kept, and never told.
    Secret,
}

const ALL: &[Kind] = &[Kind::File, Kind::S3, Kind::Gcs, Kind::Azure];
const NET: &[Kind] = &[Kind::S3, Kind::Gcs, Kind::Azure];

const KNOWN: [Known; 23] = [
    Known { name: "single_writer", kinds: ALL, what: What::Flag },
    Known { name: "retain", kinds: ALL, what: What::History },
    Known { name: "cache", kinds: ALL, what: What::Folder },
    Known { name: "cache_mib", kinds: ALL, what: What::From(1) },
    Known { name: "key_file", kinds: ALL, what: What::File },
    Known { name: "key_env", kinds: ALL, what: What::Text },
    Known { name: "spool_mib", kinds: ALL, what: What::From(0) },
    Known { name: "timeout", kinds: NET, what: What::Time },
    Known { name: "endpoint", kinds: NET, what: What::Text },
    Known { name: "anonymous", kinds: NET, what: What::Flag },
    Known { name: "region", kinds: &[Kind::S3], what: What::Text },
    Known { name: "profile", kinds: &[Kind::S3], what: What::Text },
    Known { name: "virtual_hosted_style", kinds: &[Kind::S3], what: What::Flag },
    Known { name: "access_key_id", kinds: &[Kind::S3], what: What::Secret },
    Known { name: "secret_access_key", kinds: &[Kind::S3], what: What::Secret },
    Known { name: "session_token", kinds: &[Kind::S3], what: What::Secret },
    Known { name: "service_account", kinds: &[Kind::Gcs], what: What::Text },
    Known { name: "service_account_key", kinds: &[Kind::Gcs], what: What::Secret },
    Known { name: "bearer_token", kinds: &[Kind::Gcs, Kind::Azure], what: What::Secret },
    Known { name: "account", kinds: &[Kind::Azure], what: What::Text },
    Known { name: "emulator", kinds: &[Kind::Azure], what: What::Flag },
    Known { name: "access_key", kinds: &[Kind::Azure], what: What::Secret },
    Known { name: "sas", kinds: &[Kind::Azure], what: What::Secret },
];

/// The option that says that there are no credentials.
const ANONYMOUS: &str = "anonymous";
/// The options that say where a key is; it is in one place.
const KEY_AT: [&str; 2] = ["key_file", "key_env"];

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Settings(BTreeMap<String, String>);

/// What is not. It doesn't print itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secrets(BTreeMap<String, String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The options of a remote, as a host gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    pub settings: Settings,
    pub secrets: Secrets,
}

fn wrong(text: String) -> Error {
    Error::new(Code::Argument, text)
}

impl Given {
    /// Reads the options of a remote of this kind.
    ///
    /// # Errors
    /// `Argument` for one that isn't known there, or has a value that can't be.
    pub fn read(options: &serde_json::Map<String, serde_json::Value>, kind: Kind) -> Result<Given> {
        let mut given = Given::default();
        for (name, value) in options {
            let Some(known) = KNOWN.iter().find(|known| known.name == name && known.kinds.contains(&kind))
            else {
                let names: Vec<_> = KNOWN
                    .iter()
                    .filter(|known| known.kinds.contains(&kind))
                    .map(|known| known.name)
                    .collect();
                return Err(wrong(format!(
                    "there is no option {name:?} for a remote of kind {}; there are {}",
                    kind.word(),
                    names.join(", ")
                )));
            };
            if value.is_null() {
                continue;
            }
            let told = if known.what == What::Secret { "that".to_owned() } else { value.to_string() };
            let refuse = |wanted: &str| wrong(format!("the option {name:?} can't be {told}; give {wanted}"));
            let text = match known.what {
                What::Flag => match flag(value) {
                    Some(yes) => yes.to_string(),
                    None => return Err(refuse("true or false")),
                },
                // What is in it is kept and told.
                What::Text if name == "endpoint" => match value
                    .as_str()
                    .and_then(|text| url::Url::parse(text).ok())
                {
                    Some(url)
                        if url.username().is_empty() && url.password().is_none() && url.query().is_none() =>
                    {
                        value.as_str().unwrap_or_default().to_owned()
                    }
                    _ => {
                        let text = format!(
                            "the option {name:?} must be a URL without credentials or a query; give one like https://s3.example.org"
                        );
                        return Err(wrong(text));
                    }
                },
                What::Text | What::Secret => match value.as_str() {
                    Some(text) if !text.is_empty() && !text.contains(['\0', '\n', '\r']) => text.to_owned(),
                    _ => return Err(refuse("text")),
                },
                What::Folder | What::File => match value.as_str() {
                    Some(text) if std::path::Path::new(text).is_absolute() && !text.contains('\0') => {
                        text.to_owned()
                    }
                    _ if known.what == What::File => return Err(refuse("the path of a file, from the root")),
                    _ => return Err(refuse("the path of a folder, from the root")),
                },
                What::From(least) => match value.as_u64() {
                    Some(number) if (least..1 << 32).contains(&number) => number.to_string(),
                    _ => return Err(refuse(&format!("a number from {least} on"))),
                },
                What::History => match value.as_str().map(str::parse::<Retention>) {
                    Some(Ok(retention @ (Retention::None | Retention::Lsns(_) | Retention::Seconds(_)))) => {
                        retention.to_string()
                    }
                    _ => return Err(refuse("something like '7 days', '10000 lsns' or 'none'")),
                },
                What::Time => match value.as_str().and_then(time) {
                    Some(_) => value.as_str().unwrap_or_default().to_owned(),
                    None => return Err(refuse("a time like '30s', of a day at most")),
                },
            };
            let map = if known.what == What::Secret { &mut given.secrets.0 } else { &mut given.settings.0 };
            map.insert(name.clone(), text);
        }
        if given.settings.key_at().iter().flatten().count() > 1 {
            return Err(wrong(
                "a key is in one place; give 'key_file' or 'key_env', and not both".to_owned(),
            ));
        }
        Ok(given)
    }

    /// The same, with what `options`, of which it was read, don't name as it was `before`, for the same place, but for
    /// secrets. Where the key is has two names.
    pub fn over(mut self, options: &serde_json::Map<String, serde_json::Value>, before: &Settings) -> Given {
        let named = |name: &str| options.contains_key(name);
        let key_named = KEY_AT.iter().any(|name| named(name));
        for (name, text) in &before.0 {
            let told_elsewhere = key_named && KEY_AT.contains(&name.as_str());
            if !named(name) && !told_elsewhere {
                self.settings.0.insert(name.clone(), text.clone());
            }
        }
        // Who gives credentials wants them used.
        if self.secrets != Secrets::default() && !named(ANONYMOUS) {
            self.settings.0.remove(ANONYMOUS);
        }
        self
    }

    /// The same, with the credentials that were told `before`, if `options`, of which it was read, name none. It is for
    /// whoever talks to the same machine.
    pub fn told(mut self, options: &serde_json::Map<String, serde_json::Value>, before: &Secrets) -> Given {
        let is_secret = |name: &String| {
            KNOWN.iter().any(|known| known.what == What::Secret && known.name == name.as_str())
        };
        if !options.keys().any(is_secret) {
            self.secrets = before.clone();
        }
        self
    }
}

impl Settings {
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn flag(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// How much history the remote keeps; all of it where nothing is said.
    pub fn retention(&self) -> Option<Retention> {
        self.text("retain")?.parse().ok()
    }

    /// Where the key is that encrypts the remote: in a file, or in a variable of the environment.
    pub fn key_at(&self) -> [Option<&str>; 2] {
        KEY_AT.map(|name| self.text(name))
    }

    /// Those that say, with the URL, whose machine is talked to.
    pub fn place(&self) -> [Option<&str>; 3] {
        ["endpoint", "account", "emulator"].map(|name| self.text(name))
    }

    /// Most bytes in the cache.
    pub fn cache_limit(&self) -> Option<u64> {
        Some(self.text("cache_mib")?.parse::<u64>().ok()? << 20)
    }

    /// Most bytes of the journal that are kept for the remote.
    pub fn spool_limit(&self) -> u64 {
        self.text("spool_mib").and_then(|text| text.parse().ok()).unwrap_or(SPOOL_MIB) << 20
    }

    /// How long a request may take.
    pub fn timeout(&self) -> Duration {
        self.text("timeout").and_then(time).unwrap_or(TIMEOUT)
    }
}

impl Secrets {
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Reads a truth value; SQLite's own JSON functions make numbers of them.
pub fn flag(value: &serde_json::Value) -> Option<bool> {
    match value.as_i64() {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => value.as_bool(),
    }
}

/// Reads a time like `500ms`, `1s`, `5 min` or `2 hours`, above 0 and of a day at most.
pub fn time(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let each = match unit.trim_start().to_ascii_lowercase().as_str() {
        "ms" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "second" | "seconds" => 1000,
        "m" | "min" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => return None,
    };
    let time = Duration::from_millis(number.checked_mul(each)?);
    (!time.is_zero() && time <= LONGEST).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(options: serde_json::Value, kind: Kind) -> Result<Given> {
        Given::read(options.as_object().unwrap(), kind)
    }

    #[test]
    fn secrets_are_told_from_what_is_kept() {
        let options = json!({"endpoint": "http://127.0.0.1:9", "access_key_id": "K", "secret_access_key": "S", "single_writer": 1});
        let given = read(options, Kind::S3).unwrap();
        let kept = serde_json::to_string(&given.settings).unwrap();
        assert_eq!(kept, r#"{"endpoint":"http://127.0.0.1:9","single_writer":"true"}"#);
        assert_eq!(given.secrets.text("secret_access_key"), Some("S"));
        let told = format!("{given:?}");
        assert!(!told.contains("\"S\"") && told.contains("secret_access_key"), "{told}");
    }

    #[test]
    fn what_is_not_known_is_refused_by_name_and_secrets_are_not_told() {
        let refused = |options, kind| read(options, kind).unwrap_err().to_string();
        assert!(refused(json!({"regoin": "x"}), Kind::S3).contains("\"regoin\""));
        assert!(refused(json!({"region": "x"}), Kind::File).contains("\"region\""));
        assert!(refused(json!({"region": 7}), Kind::S3).contains("can't be 7"));
        assert!(refused(json!({"anonymous": "yes"}), Kind::S3).contains("true or false"));
        assert!(refused(json!({"timeout": "soon"}), Kind::S3).contains("30s"));
        assert!(!refused(json!({"access_key_id": ["hidden"]}), Kind::S3).contains("hidden"));
    }

    #[test]
    fn where_a_key_is_stays_known_and_is_one_place() {
        for kind in [Kind::File, Kind::S3, Kind::Gcs, Kind::Azure] {
            let given = read(json!({"key_file": "/etc/app.key"}), kind).unwrap();
            assert_eq!(given.settings.key_at(), [Some("/etc/app.key"), None]);
            let given = read(json!({"key_file": null, "key_env": "APP_KEY"}), kind).unwrap();
            assert_eq!(given.settings.key_at(), [None, Some("APP_KEY")]);
            for wrong in [
                json!({"key_file": "app.key"}),
                json!({"key_file": 7}),
                json!({"key_env": ""}),
                json!({"key_file": "/etc/app.key", "key_env": "APP_KEY"}),
                json!({"key": "00"}),
            ] {
                assert_eq!(read(wrong, kind).unwrap_err().code(), Code::Argument);
            }
        }
    }

    #[test]
    fn what_is_not_named_stays_and_null_is_the_default_again() {
        let before = read(
            json!({"endpoint": "http://a", "region": "x", "retain": "none", "key_file": "/k",
                "access_key_id": "K", "session_token": "T"}),
            Kind::S3,
        )
        .unwrap();
        let over = |options: serde_json::Value| {
            let options = options.as_object().unwrap();
            Given::read(options, Kind::S3)
                .unwrap()
                .over(options, &before.settings)
                .told(options, &before.secrets)
        };
        assert_eq!(over(json!({})), before);
        // Of credentials, none is left of those before.
        let given = over(json!({"access_key_id": "L"}));
        assert_eq!(given.settings, before.settings);
        assert_eq!(
            (given.secrets.text("access_key_id"), given.secrets.text("session_token")),
            (Some("L"), None)
        );
        let given = over(json!({"retain": null, "region": "y"}));
        assert_eq!(given.settings.retention(), None);
        assert_eq!(
            (given.settings.text("region"), given.settings.text("endpoint")),
            (Some("y"), Some("http://a"))
        );
        assert_eq!(given.secrets, before.secrets);
        assert_eq!(over(json!({"key_env": "K"})).settings.key_at(), [None, Some("K")]);
        assert_eq!(over(json!({"key_file": null})).settings.key_at(), [None, None]);
    }

    #[test]
    fn who_gives_credentials_wants_them_used() {
        let before = read(json!({"anonymous": true, "region": "x"}), Kind::S3).unwrap();
        for (options, anonymous) in [
            (json!({"access_key_id": "K", "secret_access_key": "S"}), false),
            (json!({"access_key_id": "K", "anonymous": true}), true),
            (json!({"access_key_id": null}), true),
            (json!({"region": "y"}), true),
        ] {
            let options = options.as_object().unwrap();
            let given = Given::read(options, Kind::S3).unwrap().over(options, &before.settings);
            assert_eq!(given.settings.flag(ANONYMOUS), anonymous, "{options:?}");
        }
    }

    #[test]
    fn the_spool_has_a_bound_which_may_be_nothing() {
        for (options, bound) in
            [(json!({}), 256 << 20), (json!({"spool_mib": 0}), 0), (json!({"spool_mib": 7}), 7 << 20)]
        {
            assert_eq!(read(options, Kind::File).unwrap().settings.spool_limit(), bound);
        }
        assert!(read(json!({"spool_mib": -1}), Kind::File).unwrap_err().to_string().contains("from 0 on"));
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(time(" 5 min "), Some(Duration::from_secs(300)));
        assert_eq!(time("1 day"), Some(Duration::from_secs(86_400)));
        for text in ["", "5", "0s", "-1s", "25h", "1 fortnight", "99999999999999999999s"] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
