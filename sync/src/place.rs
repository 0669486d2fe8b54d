//! Whether two URLs name one place.

use object_store::path::Path;
use url::Url;

use crate::address::{Address, Kind};
use crate::settings::Settings;

/// True if both are one place, or may be: what is known of one is known of the other then. A machine has many names, so
/// endpoints tell nothing; an account does.
pub(crate) fn may_be_one(one: (&Address, &Settings), other: (&Address, &Settings)) -> bool {
    if one.0.kind() != other.0.kind() {
        return false;
    }
    let (Ok(url), Ok(others)) = (Url::parse(one.0.url()), Url::parse(other.0.url())) else { return false };
    if one.0.kind() == Kind::File {
        return same_folder(&url, &others);
    }
    let accounts = [account(&url, one.1), account(&others, other.1)];
    bucket(&url) == bucket(&others)
        && prefix(&url) == prefix(&others)
        && (accounts.contains(&None) || accounts[0] == accounts[1])
}

/// True if both are surely one machine's, so that what was given to talk to one may be told to the other. An account that
/// is said somewhere else, or nowhere, may be another.
pub(crate) fn is_one_machine(one: (&Address, &Settings), other: (&Address, &Settings)) -> bool {
    let host = |address: &Address| {
        let url = Url::parse(address.url()).ok()?;
        // What isn't the account's is the bucket's, which is the same.
        (!url.username().is_empty()).then(|| url.host_str().map(str::to_owned)).flatten()
    };
    one.1.place() == other.1.place() && host(one.0) == host(other.0)
}

/// Paths are compared part by part; where both are there, a link may lead from one to the other.
fn same_folder(one: &Url, other: &Url) -> bool {
    let (Ok(one), Ok(other)) = (one.to_file_path(), other.to_file_path()) else { return false };
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// True of a place in a folder of this machine, or of that folder itself, also through a link.
pub(crate) fn is_within(address: &Address, folder: &std::path::Path) -> bool {
    if address.kind() != Kind::File {
        return false;
    }
    let Some(path) = Url::parse(address.url()).ok().and_then(|url| url.to_file_path().ok()) else {
        return false;
    };
    let there = folder.canonicalize().ok();
    let is_it = |above: &std::path::Path| there.is_some() && above.canonicalize().ok() == there;
    path.starts_with(folder) || path.ancestors().any(is_it)
}

/// The bucket, or Azure's container: that stands before the account, if the account is in the URL.
fn bucket(url: &Url) -> &str {
    match url.username() {
        "" => url.host_str().unwrap_or_default(),
        container => container,
    }
}

fn account<'a>(url: &'a Url, settings: &'a Settings) -> Option<&'a str> {
    match url.username() {
        "" => settings.text("account"),
        _ => url.host_str()?.split('.').next(),
    }
}

/// As an object store has it: without slashes around it.
fn prefix(url: &Url) -> String {
    Path::from_url_path(url.path()).map_or_else(|_| url.path().to_owned(), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Given;
    use serde_json::json;

    fn one(a: &str, b: &str) -> bool {
        let none = Settings::default();
        may_be_one((&Address::parse(a).unwrap(), &none), (&Address::parse(b).unwrap(), &none))
    }

    #[test]
    fn one_place_has_several_urls() {
        for (a, b) in [
            ("file:///mnt/backup", "file:///mnt/backup/"),
            ("file:///mnt/backup", "file:///mnt//x/../backup"),
            ("file:///mnt/my%20app", "file:///mnt/my app"),
            ("file:///mnt/backup", "file://localhost/mnt/backup"),
            ("s3://bucket/app", "s3://bucket/app/"),
            ("s3://bucket", "s3a://bucket/"),
            ("gs://bucket/a%20b", "gs://bucket/a b"),
            ("az://box/app", "abfss://box@account.dfs.core.windows.net/app/"),
        ] {
            assert!(one(a, b) && one(b, a), "{a} and {b}");
        }
        for (a, b) in [
            ("file:///mnt/backup", "file:///mnt/backup2"),
            ("s3://bucket/app", "s3://bucket/app/more"),
            ("s3://bucket/app", "s3://other/app"),
            ("s3://bucket/app", "gs://bucket/app"),
            ("abfss://box@one.dfs.core.windows.net/app", "abfss://box@two.dfs.core.windows.net/app"),
        ] {
            assert!(!one(a, b) && !one(b, a), "{a} and {b}");
        }
    }

    #[test]
    fn a_machine_is_only_the_same_where_both_say_so() {
        let none = Settings::default();
        let account = Given::read(json!({"account": "account"}).as_object().unwrap(), Kind::Azure).unwrap();
        let (box_, other) = ("az://box/app", "abfss://box@account.dfs.core.windows.net/app");
        let same = |a: (&str, &Settings), b: (&str, &Settings)| {
            let [one, two] = [a.0, b.0].map(|url| Address::parse(url).unwrap());
            is_one_machine((&one, a.1), (&two, b.1)) && is_one_machine((&two, b.1), (&one, a.1))
        };
        assert!(same((box_, &none), (box_, &none)) && same((other, &none), (other, &none)));
        assert!(same((box_, &none), ("az://box/app/", &none)));
        assert!(same((box_, &account.settings), (box_, &account.settings)));
        assert!(!same((box_, &none), (other, &none)), "that of the environment may be another");
        assert!(!same((box_, &none), (box_, &account.settings)));
        assert!(!same((box_, &account.settings), (other, &none)));
        let cloud = "abfss://box@account.dfs.fabric.microsoft.com/app";
        assert!(!same((other, &none), (cloud, &none)), "the same name on another machine");
        assert!(same(("s3://bucket/app", &none), ("s3a://bucket/app/", &none)));
    }

    #[test]
    fn a_link_leads_to_the_same_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (at, link) = (folder.path().join("at"), folder.path().join("link"));
        std::fs::create_dir(&at).unwrap();
        std::os::unix::fs::symlink(&at, &link).unwrap();
        let url = |path: &std::path::Path| Url::from_file_path(path).unwrap().to_string();
        assert!(one(&url(&at), &url(&link)));
        assert!(!one(&url(&at), &url(folder.path())));
        let within = |path: &std::path::Path| is_within(&Address::parse(&url(path)).unwrap(), &at);
        assert!(within(&at) && within(&at.join("new/er")) && within(&link) && within(&link.join("new")));
        assert!(!within(folder.path()) && !within(&folder.path().join("at2")));
    }

    #[test]
    fn an_endpoint_may_be_another_name_and_an_account_is_another_place() {
        let given = |options: serde_json::Value| {
            Given::read(options.as_object().unwrap(), Kind::Azure).unwrap().settings
        };
        let at = Address::parse("az://box/app").unwrap();
        let same = |a, b| may_be_one((&at, &given(a)), (&at, &given(b)));
        assert!(same(json!({"endpoint": "http://a"}), json!({"endpoint": "http://b"})));
        assert!(same(json!({"account": "a"}), json!({})));
        assert!(!same(json!({"account": "a"}), json!({"account": "b"})));
    }
}
