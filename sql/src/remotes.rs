//! Functions about remotes, and their table.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Value;
use serde_json::json;
use tideline_journal::disk::RealDisk;
use tideline_journal::{Code, Error, Lsn, Result, Store, interrupted};
use tideline_sync::{Cloning, Listed, ORIGIN, Point, Remotes, Task, quoted, store_options};

use crate::call::Call;
use crate::functions::integer;
use crate::table::Rows;
use crate::tables::{or_null, text};
use crate::time::{instant, iso8601};

const URL: &str = "a URL like 'file:///backups/app'";
const NAME: &str = "the name of a remote, as TEXT";

/// `tide_remote(name, url, options)`
pub(crate) fn remote(call: &Call<'_>) -> Result<Value> {
    let name = call.arguments.optional_text(0, NAME)?.ok_or_else(|| call.arguments.refuse(0, NAME))?;
    let url = call.arguments.optional_text(1, URL)?;
    let options = call.arguments.object(2)?;
    let store = call.changed()?.store;
    let remotes = Remotes::of(&store).until(&interrupted);
    call.patiently(&store, || match url {
        Some(url) => remotes.add(name, url, options.as_ref()),
        None => remotes.remove(name),
    })?;
    Ok(Value::Text(name.to_owned()))
}

/// `tide_push(name, options)`
pub(crate) fn push(call: &Call<'_>) -> Result<Value> {
    perform(call, Task::Push)
}

/// `tide_pull(name, options)`
pub(crate) fn pull(call: &Call<'_>) -> Result<Value> {
    perform(call, Task::Pull)
}

/// `tide_sync(name, options)`
pub(crate) fn sync(call: &Call<'_>) -> Result<Value> {
    perform(call, Task::Sync)
}

/// `tide_clone(url, path, options)`
pub(crate) fn clone(call: &Call<'_>) -> Result<Value> {
    let url = call.arguments.optional_text(0, URL)?.ok_or_else(|| call.arguments.refuse(0, URL))?;
    let mut path = call.arguments.path(1)?;
    let mut remote = call.arguments.object(2)?.unwrap_or_default();
    let until = point(remote.remove("at"), remote.remove("as_of"))?;
    let replace = match remote.remove("replace") {
        None => false,
        Some(value) => tideline_sync::flag(&value).ok_or_else(|| {
            let text = format!("the option 'replace' can't be {value}; give 1 or 0, or true or false");
            Error::new(Code::Argument, text)
        })?,
    };
    if let (true, Ok(followed)) = (replace, path.canonicalize()) {
        // What is replaced is the database, and not a link to it.
        path = followed;
    }
    let cloning = Cloning { url, remote, until, replace, options: store_options(), stop: &interrupted };
    Ok(integer(cloning.make(Arc::new(RealDisk::new()), &path)?.get()))
}

/// How far a clone goes.
fn point(at: Option<serde_json::Value>, as_of: Option<serde_json::Value>) -> Result<Point> {
    let wrong = |text: String| Err(Error::new(Code::Argument, text));
    match (at, as_of) {
        (None, None) => Ok(Point::Newest),
        (Some(at), None) => match at.as_u64().filter(|&lsn| lsn > 0) {
            Some(lsn) => Ok(Point::Lsn(Lsn::new(lsn))),
            None => wrong(format!("the option 'at' can't be {at}; give an LSN, from 1 on")),
        },
        (None, Some(time)) => match time.as_str().and_then(instant) {
            Some(time) => Ok(Point::Time(time)),
            None => wrong(format!(
                "the option 'as_of' can't be {time}; give a time in UTC like '2026-01-31T12:00:00Z' or '2026-01-31 12:00:00.500'"
            )),
        },
        (Some(_), Some(_)) => {
            wrong("the options 'at' and 'as_of' can't go together; give one of them".to_owned())
        }
    }
}

fn perform(call: &Call<'_>, task: Task) -> Result<Value> {
    let name = call.arguments.optional_text(0, NAME)?.unwrap_or(ORIGIN);
    let every =
        call.arguments.options(1, &["every"])?.remove("every").map(|value| every(&value)).transpose()?;
    // What was committed goes to a remote from wherever it is read.
    let located = if matches!(task, Task::Push) { call.commanded()? } else { call.changed()? };
    let store = located.store;
    let remotes = Remotes::of(&store).until(&interrupted);
    if every.flatten().is_some() {
        // It begins also while somebody else talks to the remote, but can't be tried then.
        drop(call.patiently(&store, || store.remote_turn(name).map(drop)));
    }
    let work = || match (every, task) {
        (Some(every), task) => remotes.keep_on(name, task, every),
        (None, Task::Push) => remotes.push(name),
        (None, Task::Pull) => remotes.pull(name),
        (None, Task::Sync) => remotes.sync(name),
    };
    call.patiently(&store, work).map(|reached| integer(reached.get()))
}

/// How often something is done; `None` for not any more.
fn every(value: &serde_json::Value) -> Result<Option<Duration>> {
    if value.is_null() {
        return Ok(None);
    }
    match value.as_str().and_then(tideline_sync::time) {
        Some(time) => Ok(Some(time)),
        None => {
            let text = format!(
                "the option 'every' can't be {value}; give a time like '1s' or '5 min', of a day at most, or null to stop"
            );
            Err(Error::new(Code::Argument, text))
        }
    }
}

/// `tide_hydrate()`
pub(crate) fn hydrate(call: &Call<'_>) -> Result<Value> {
    let store = call.changed()?.store;
    let fetched = call.patiently(&store, || store.hydrate(|_, _| !interrupted()))?;
    Ok(integer(fetched))
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
        or_null(remote.next_try, |time| text(iso8601(time))),
        integer(remote.traffic.requests),
        integer(remote.traffic.bytes),
    ]
}

/// What `tide_status` says of them.
pub(crate) fn status(store: &Arc<Store>) -> Result<serde_json::Value> {
    let listed = Remotes::of(store).list()?;
    let object = |remote: Listed| {
        json!({
            "name": remote.name,
            "lsn": remote.head.map(|lsn| lsn.get()),
            "behind": remote.ahead,
            "needs_full": remote.needs_full,
        })
    };
    Ok(listed.into_iter().map(object).collect())
}

/// Refuses to forget what no remote has.
pub(crate) fn nothing_unsent(store: &Arc<Store>) -> Result<()> {
    match Remotes::of(store).list()?.into_iter().find(|remote| remote.ahead > 0) {
        Some(Listed { name, ahead, .. }) => {
            let name = quoted(&name);
            let text = format!(
                "{ahead} commits aren't at the remote {name}; push them with tide_push({name}), or remove the remote with tide_remote({name}, NULL)"
            );
            Err(Error::new(Code::Busy, text))
        }
        None => Ok(()),
    }
}
