//! The scalar functions.

use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::Value;
use tideline_journal::{Code, Error, Lsn, LsnRange, Result, Retention};

use crate::argument::OPTIONS_OR_SCHEMA;
use crate::call::{Call, fitting};
use crate::locate::Locate;
use crate::raw::{self, Function, Use};
use crate::{remotes, trace};

/// All of them, each with what it takes.
static FUNCTIONS: [Function; 19] = [
    Function { name: c"tide_version", arguments: &[], least: 0, for_use: Use::Innocuous, body: version },
    Function { name: c"tide_lsn", arguments: &["schema"], least: 0, for_use: Use::Innocuous, body: lsn },
    Function {
        name: c"tide_status",
        arguments: &["schema"],
        least: 0,
        for_use: Use::Innocuous,
        body: status,
    },
    Function {
        name: c"tide_prepare",
        arguments: &["after_lsn", "max_bytes", "schema"],
        least: 1,
        for_use: Use::Reading,
        body: prepare,
    },
    Function {
        name: c"tide_receive",
        arguments: &["blob", "schema"],
        least: 1,
        for_use: Use::Command,
        body: receive,
    },
    Function {
        name: c"tide_compact",
        arguments: &["first", "last", "schema"],
        least: 0,
        for_use: Use::Command,
        body: compact,
    },
    Function { name: c"tide_fold", arguments: &["schema"], least: 0, for_use: Use::Command, body: fold },
    Function {
        name: c"tide_export",
        arguments: &["path", "schema"],
        least: 1,
        for_use: Use::Command,
        body: export,
    },
    Function { name: c"tide_retain", arguments: &[], least: 0, for_use: Use::Innocuous, body: retained },
    Function {
        name: c"tide_retain",
        arguments: &["what", "schema"],
        least: 1,
        for_use: Use::Command,
        body: retain,
    },
    Function {
        name: c"tide_remote",
        arguments: &["name", "url", "options", "schema"],
        least: 2,
        for_use: Use::Command,
        body: remotes::remote,
    },
    Function {
        name: c"tide_push",
        arguments: &["name", "options", "schema"],
        least: 0,
        for_use: Use::Command,
        body: remotes::push,
    },
    Function {
        name: c"tide_pull",
        arguments: &["name", OPTIONS_OR_SCHEMA, "schema"],
        least: 0,
        for_use: Use::Command,
        body: remotes::pull,
    },
    Function {
        name: c"tide_sync",
        arguments: &["name", OPTIONS_OR_SCHEMA, "schema"],
        least: 0,
        for_use: Use::Command,
        body: remotes::sync,
    },
    Function {
        name: c"tide_clone",
        arguments: &["url", "path", "options"],
        least: 2,
        for_use: Use::Command,
        body: remotes::clone,
    },
    Function {
        name: c"tide_hydrate",
        arguments: &["schema"],
        least: 0,
        for_use: Use::Command,
        body: remotes::hydrate,
    },
    Function { name: c"tide_detach", arguments: &["schema"], least: 0, for_use: Use::Command, body: detach },
    Function {
        name: c"tide_last_error",
        arguments: &[],
        least: 0,
        for_use: Use::Innocuous,
        body: last_error,
    },
    Function { name: c"tide_trace", arguments: &["level"], least: 1, for_use: Use::Command, body: set_trace },
];

/// Registers them with a connection.
pub(crate) fn register(connection: &Connection, locate: &Arc<dyn Locate>) -> rusqlite::Result<()> {
    FUNCTIONS.iter().try_for_each(|function| raw::create(connection, function, locate))
}

/// A number as SQL has it; LSNs and sizes stay far below its limit.
pub(crate) fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn version(_call: &Call<'_>) -> Result<Value> {
    Ok(Value::Text(env!("CARGO_PKG_VERSION").to_owned()))
}

fn lsn(call: &Call<'_>) -> Result<Value> {
    let located = call.located()?;
    Ok(integer(located.snapshot.unwrap_or_else(|| located.store.head()).get()))
}

fn status(call: &Call<'_>) -> Result<Value> {
    let store = call.located()?.store;
    let status = store.status()?;
    let mut status_object = serde_json::json!({
        "path": status.path.to_string_lossy(),
        "page_size": status.page_size,
        "lineage": hex(&status.lineage),
        "head": status.head.get(),
        "durable": status.durable.get(),
        "base": status.base.get(),
        "horizon": status.horizon.get(),
        "segments": status.segments,
        "journal_bytes": status.journal_bytes,
        "readers": status.readers,
        "remotes": remotes::status(&store)?,
    });
    if let (Some((absent, pages)), Some(object)) = (store.absent()?, status_object.as_object_mut()) {
        object.insert("lazy".into(), serde_json::json!({ "absent": absent, "pages": pages }));
    }
    Ok(Value::Text(status_object.to_string()))
}

fn prepare(call: &Call<'_>) -> Result<Value> {
    let (after, max_bytes) = (call.arguments.lsn(0)?, call.arguments.optional_size(1)?);
    match call.located()?.store.prepare(after, max_bytes)? {
        Some(blob) => fitting(blob, call.host.length_limit()).map(Value::Blob),
        None => Ok(Value::Null),
    }
}

fn receive(call: &Call<'_>) -> Result<Value> {
    let blob = call.arguments.blob(0)?;
    let store = call.changed()?.store;
    if blob.is_empty() {
        return Ok(integer(store.head().get()));
    }
    call.patiently(&store, || store.receive(blob)).map(|reached| integer(reached.get()))
}

fn compact(call: &Call<'_>) -> Result<Value> {
    let range = match (call.arguments.optional_lsn(0)?, call.arguments.optional_lsn(1)?) {
        (None, None) => None,
        (Some(first), Some(last)) => Some(LsnRange { first, last }),
        (Some(_), None) => return Err(call.arguments.refuse(1, "both ends of a range, or none")),
        (None, Some(_)) => return Err(call.arguments.refuse(0, "both ends of a range, or none")),
    };
    let store = call.changed()?.store;
    if let Some(range) = range {
        let head = store.head();
        if range.first == Lsn::ZERO || range.first > range.last || range.last > head {
            let text = format!(
                "{} to {} is no range of LSNs here; give two of 1 to {head}, the first not above the last",
                range.first, range.last
            );
            return Err(Error::new(Code::Argument, text));
        }
    }
    call.patiently(&store, || store.compact(range)).map(integer)
}

fn fold(call: &Call<'_>) -> Result<Value> {
    let store = call.changed()?.store;
    call.patiently(&store, || store.fold()).map(|base| integer(base.get()))
}

fn export(call: &Call<'_>) -> Result<Value> {
    let path = call.arguments.path(0)?;
    let store = call.commanded()?.store;
    store.export(&path).map(|exported| integer(exported.get()))
}

fn retained(call: &Call<'_>) -> Result<Value> {
    let retention = call.located()?.store.retention()?;
    Ok(Value::Text(retention.to_string()))
}

fn retain(call: &Call<'_>) -> Result<Value> {
    const WANTED: &str = "something like '7 days', '1 GB', '10000 lsns' or 'none'";
    let Some(what) = call.arguments.optional_text(0, WANTED)? else { return retained(call) };
    let retention: Retention = what.parse()?;
    let store = call.changed()?.store;
    call.patiently(&store, || store.set_retention(retention))?;
    Ok(Value::Text(retention.to_string()))
}

fn detach(call: &Call<'_>) -> Result<Value> {
    let store = call.changed()?.store;
    remotes::nothing_unsent(&store)?;
    store.detach()?;
    Ok(integer(store.head().get()))
}

fn last_error(call: &Call<'_>) -> Result<Value> {
    let text = call.locate.last_error();
    Ok(if text.is_empty() { Value::Null } else { Value::Text(text) })
}

fn set_trace(call: &Call<'_>) -> Result<Value> {
    const WANTED: &str = "'off', 'error', 'warn', 'info', 'debug' or 'trace'";
    if let Some(level) = call.arguments.optional_text(0, WANTED)? {
        trace::set(level.parse().map_err(|()| call.arguments.refuse(0, WANTED))?)?;
    }
    Ok(Value::Text(trace::level().to_string()))
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_lower_case_and_keeps_its_zeros() {
        assert_eq!(hex(&[0, 10, 255]), "000aff");
    }

    #[test]
    fn whatever_has_a_store_takes_a_schema_last() {
        for function in &FUNCTIONS {
            let name = function.name.to_str().expect("a name");
            assert!(function.least <= function.arguments.len(), "{name}");
            let without = ["tide_version", "tide_last_error", "tide_trace", "tide_clone"].contains(&name);
            let short = name == "tide_retain" && function.least == 0;
            assert_eq!(function.arguments.last() == Some(&"schema"), !without && !short, "{name}");
        }
    }
}
