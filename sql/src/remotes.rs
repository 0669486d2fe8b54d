//! Functions about remotes, and their table.

use std::sync::Arc;

use rusqlite::types::Value;
use serde_json::json;
use tideline_journal::disk::RealDisk;
use tideline_journal::{Code, Error, Options, Result, Store};
use tideline_sync::{Listed, ORIGIN, Objects, Remotes, clone_into};

use crate::call::Call;
use crate::functions::integer;
use crate::table::Rows;
use crate::tables::{or_null, text};
use crate::time::iso8601;

const URL: &str = "a URL like 'file:///backups/app'";
const NAME: &str = "the name of a remote, as TEXT";

/// `tide_remote(name, url, options)`
pub(crate) fn remote(call: &Call<'_>) -> Result<Value> {
    let name = call.arguments.optional_text(0, NAME)?.ok_or_else(|| call.arguments.refuse(0, NAME))?;
    let url = call.arguments.optional_text(1, URL)?;
    let options = call.arguments.options(2, &["single_writer"])?;
    let single_writer = options.get("single_writer").map(|value| flag("single_writer", value)).transpose()?;
    let store = call.commanded()?.store;
    let remotes = Remotes::of(&store);
    call.patiently(&store, || match url {
        Some(url) => remotes.add(name, url, single_writer.unwrap_or(false)),
        None => remotes.remove(name),
    })?;
    Ok(Value::Text(name.to_owned()))
}

/// `tide_push(name, options)`
pub(crate) fn push(call: &Call<'_>) -> Result<Value> {
    call.arguments.options(1, &[])?;
    with(call, |remotes, name| remotes.push(name))
}

/// `tide_pull(name)`
pub(crate) fn pull(call: &Call<'_>) -> Result<Value> {
    with(call, |remotes, name| remotes.pull(name))
}

/// `tide_sync(name)`
pub(crate) fn sync(call: &Call<'_>) -> Result<Value> {
    with(call, |remotes, name| remotes.sync(name))
}

/// `tide_clone(url, path, options)`
pub(crate) fn clone(call: &Call<'_>) -> Result<Value> {
    let url = call.arguments.optional_text(0, URL)?.ok_or_else(|| call.arguments.refuse(0, URL))?;
    let path = call.arguments.path(1)?;
    call.arguments.options(2, &[])?;
    let cloned = clone_into(Arc::new(RealDisk::new()), url, &path, Options::default(), &Objects::at)?;
    Ok(integer(cloned.get()))
}

fn with(
    call: &Call<'_>,
    work: impl Fn(&Remotes<'_>, &str) -> Result<tideline_journal::Lsn>,
) -> Result<Value> {
    let name = call.arguments.optional_text(0, NAME)?.unwrap_or(ORIGIN);
    let store = call.commanded()?.store;
    let remotes = Remotes::of(&store);
    call.patiently(&store, || work(&remotes, name)).map(|reached| integer(reached.get()))
}

/// A yes or no in JSON, which SQL has as a number.
fn flag(name: &str, value: &serde_json::Value) -> Result<bool> {
    match value {
        serde_json::Value::Bool(yes) => Ok(*yes),
        number if *number == json!(0) => Ok(false),
        number if *number == json!(1) => Ok(true),
        other => {
            let text = format!("the option {name:?} can't be {other}; give true or false");
            Err(Error::new(Code::Argument, text))
        }
    }
}

/// `tide_remotes`
pub(crate) fn listing(call: &Call<'_>) -> Result<Rows> {
    let store = call.located()?.store;
    let listed = Remotes::of(&store).list()?;
    Ok(Box::new(listed.into_iter().map(|remote| Ok(row(remote)))))
}

fn row(remote: Listed) -> Vec<Value> {
    vec![
        text(remote.name),
        text(remote.url),
        text(remote.kind),
        or_null(remote.head, |head| integer(head.get())),
        integer(remote.behind),
        integer(remote.ahead),
        or_null(remote.last_success, |time| text(iso8601(time))),
        or_null(remote.last_error, text),
        // Nothing is pushed by itself yet.
        Value::Null,
        integer(remote.traffic.requests),
        integer(remote.traffic.bytes),
    ]
}

/// What `tide_status` says of them.
pub(crate) fn status(store: &Arc<Store>) -> Result<serde_json::Value> {
    let listed = Remotes::of(store).list()?;
    let object = |remote: Listed| json!({ "name": remote.name, "lsn": remote.head.map(|lsn| lsn.get()), "behind": remote.ahead });
    Ok(listed.into_iter().map(object).collect())
}

/// Refuses to forget what no remote has.
pub(crate) fn nothing_unsent(store: &Arc<Store>) -> Result<()> {
    match Remotes::of(store).list()?.into_iter().find(|remote| remote.ahead > 0) {
        Some(Listed { name, ahead, .. }) => {
            let text = format!(
                "{ahead} commits aren't at the remote {name:?}; push them with tide_push({name:?}), or remove the remote with tide_remote({name:?}, NULL)"
            );
            Err(Error::new(Code::Busy, text))
        }
        None => Ok(()),
    }
}
