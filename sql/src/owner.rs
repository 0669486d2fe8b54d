//! What a page of a database belongs to: a table, an index, or what SQLite keeps for itself.
//!
//! The b-trees are walked from their roots, as far as their pages can be read, until every page that is asked for was
//! met. Nothing in them is believed: numbers lead only to pages that the database has, and to each of them once.

use std::collections::{BTreeMap, BTreeSet};

/// A database's pages, as somebody reads them.
pub(crate) trait Pages {
    /// Their number.
    fn count(&self) -> u32;

    /// Bytes of a page; `None` if it can't be read.
    fn page(&self, number: u32) -> Option<Vec<u8>>;
}

/// Kinds of pages of b-trees: their first byte.
const INDEX_INTERIOR: u8 = 2;
const TABLE_INTERIOR: u8 = 5;
const INDEX_LEAF: u8 = 10;
const TABLE_LEAF: u8 = 13;

/// The object that each of `wanted` belongs to, where that is found; `roots` are the objects' first pages, and names.
pub(crate) fn owners(
    pages: &dyn Pages,
    roots: &[(u32, String)],
    mut wanted: BTreeSet<u32>,
) -> BTreeMap<u32, String> {
    let mut walk = Walk { pages, usable: 0, seen: vec![0; pages.count() as usize / 64 + 1] };
    let mut owners = BTreeMap::new();
    let Some(first) = pages.page(1).filter(|first| first.len() > 100) else { return owners };
    walk.usable = first.len().saturating_sub(first[20].into());
    let mut meet = |page: u32, name: &str| {
        if wanted.remove(&page) {
            owners.insert(page, name.to_owned());
        }
        wanted.is_empty()
    };
    for (root, name) in roots {
        if walk.tree(*root, |page| meet(page, name)) {
            return owners;
        }
    }
    walk.free(be(&first, 32), |page| meet(page, "(free)"));
    owners
}

struct Walk<'a> {
    pages: &'a dyn Pages,
    /// Bytes of a page that SQLite uses.
    usable: usize,
    /// A bit for each page.
    seen: Vec<u64>,
}

impl Walk<'_> {
    /// True if there is such a page, and it is met for the first time.
    fn is_new(&mut self, page: u32) -> bool {
        if page == 0 || page > self.pages.count() {
            return false;
        }
        let (word, bit) = (page as usize / 64, 1 << (page % 64));
        let new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        new
    }

    /// Meets the pages of the b-tree at `root`; true if `meet` has enough.
    fn tree(&mut self, root: u32, mut meet: impl FnMut(u32) -> bool) -> bool {
        let mut next = vec![root];
        while let Some(number) = next.pop() {
            if !self.is_new(number) {
                continue;
            }
            if meet(number) {
                return true;
            }
            let Some(page) = self.pages.page(number) else { continue };
            let mut chains = Vec::new();
            self.cells(&page, if number == 1 { 100 } else { 0 }, &mut next, &mut chains);
            for chain in chains {
                if self.chain(chain, &mut meet) {
                    return true;
                }
            }
        }
        false
    }

    /// Meets the overflow pages from `first` on; each begins with the number of the next.
    fn chain(&mut self, first: u32, mut meet: impl FnMut(u32) -> bool) -> bool {
        let mut number = first;
        while self.is_new(number) {
            if meet(number) {
                return true;
            }
            let Some(page) = self.pages.page(number) else { break };
            number = be(&page, 0);
        }
        false
    }

    /// Meets the free pages: a list of pages, each with the numbers of others.
    fn free(&mut self, first: u32, mut meet: impl FnMut(u32) -> bool) {
        let mut number = first;
        while self.is_new(number) {
            if meet(number) {
                return;
            }
            let Some(page) = self.pages.page(number) else { return };
            let count = (be(&page, 4) as usize).min(page.len() / 4);
            for n in 0..count {
                let leaf = be(&page, 8 + 4 * n);
                if self.is_new(leaf) && meet(leaf) {
                    return;
                }
            }
            number = be(&page, 0);
        }
    }

    /// Pages that the cells of a b-tree's page, whose header is at byte `at`, lead to: children, and chains of overflow
    /// pages.
    fn cells(&self, page: &[u8], at: usize, children: &mut Vec<u32>, chains: &mut Vec<u32>) {
        let kind = page.get(at).copied().unwrap_or(0);
        let interior = matches!(kind, INDEX_INTERIOR | TABLE_INTERIOR);
        if !interior && !matches!(kind, INDEX_LEAF | TABLE_LEAF) {
            return;
        }
        if interior {
            children.push(be(page, at + 8));
        }
        let first = at + if interior { 12 } else { 8 };
        for n in 0..usize::from(short(page, at + 3)) {
            let mut cell = usize::from(short(page, first + 2 * n));
            if interior {
                children.push(be(page, cell));
                cell += 4;
            }
            if kind == TABLE_INTERIOR {
                continue;
            }
            let (payload, length) = varint(page, cell);
            cell += length;
            if kind == TABLE_LEAF {
                cell += varint(page, cell).1;
            }
            if let Some(local) = self.local(kind, payload) {
                chains.push(be(page, cell.saturating_add(local)));
            }
        }
    }

    /// Bytes of a payload that are in its cell, if the rest is in overflow pages.
    fn local(&self, kind: u8, payload: u64) -> Option<usize> {
        let usable = self.usable as u64;
        let least = (usable.saturating_sub(12) * 32 / 255).saturating_sub(23);
        let most = if kind == TABLE_LEAF {
            usable.saturating_sub(35)
        } else {
            (usable.saturating_sub(12) * 64 / 255).saturating_sub(23)
        };
        if payload <= most || usable < 5 {
            return None;
        }
        let fitting = least + (payload - least) % (usable - 4);
        usize::try_from(if fitting <= most { fitting } else { least }).ok()
    }
}

/// A number of 4 bytes; 0 behind the end.
fn be(bytes: &[u8], at: usize) -> u32 {
    let bytes = at.checked_add(4).and_then(|end| bytes.get(at..end));
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// A number of 2 bytes; 0 behind the end.
fn short(bytes: &[u8], at: usize) -> u16 {
    let bytes = at.checked_add(2).and_then(|end| bytes.get(at..end));
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_be_bytes)
}

/// A number of SQLite's variable length, and the length.
fn varint(bytes: &[u8], at: usize) -> (u64, usize) {
    let mut value = 0u64;
    for n in 0..9 {
        let Some(&byte) = at.checked_add(n).and_then(|at| bytes.get(at)) else { return (value, n) };
        if n == 8 {
            return (value << 8 | u64::from(byte), 9);
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return (value, n + 1);
        }
    }
    (value, 9)
}
