//! A database of three small pages, for tests that look inside the store.

use std::sync::Arc;

use crate::error::Result;
use crate::session::{Durability, Session};
use crate::store::Store;

const PAGE: usize = 512;

/// Begins a transaction that fills all pages but the first.
pub(crate) fn write(session: &mut Session, fill: u8) -> Result<()> {
    session.begin_read()?;
    session.begin_write()?;
    let mut header = [0; PAGE];
    header[..24].copy_from_slice(b"SQLite format 3\0\x02\x00\x01\x01\x00\x40\x20\x20");
    header[28..32].copy_from_slice(&3u32.to_be_bytes());
    session.write(0, &header)?;
    for page in 1..3 {
        session.write(page * PAGE as u64, &[fill; PAGE])?;
    }
    session.truncate(3 * PAGE as u64)
}

/// Commits it.
pub(crate) fn commit(session: &mut Session) -> Result<()> {
    session.prepare(None)?;
    session.publish(Durability::Process, false)?;
    session.end_read()
}

/// What the pages were filled with last.
pub(crate) fn last(store: &Arc<Store>) -> Result<u8> {
    let mut session = Session::new(Arc::clone(store))?;
    session.begin_read()?;
    let mut image = [0; PAGE];
    session.read(PAGE as u64, &mut image)?;
    assert_eq!(image, [image[0]; PAGE]);
    Ok(image[0])
}
