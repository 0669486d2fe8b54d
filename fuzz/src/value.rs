//! Little-endian numbers in byte strings, and what an input may put in their place.

use arbitrary::{Arbitrary, Unstructured};

/// What an input says, to be read.
pub fn describe<'a, P: Arbitrary<'a> + std::fmt::Debug>(data: &'a [u8]) -> String {
    match P::arbitrary_take_rest(Unstructured::new(data)) {
        Ok(plan) => format!("{plan:#?}"),
        Err(e) => format!("nothing: {e}"),
    }
}

/// What becomes of a number.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Value {
    /// A small one.
    Small(u8),
    /// The number that was there, and so much.
    Add(i8),
    /// One of its bits is another.
    Bit(u8),
    /// 2^n, and so much.
    Power(u8, i8),
    /// Any.
    Any(u64),
}

impl Value {
    /// The number that takes the place of `old`.
    pub fn of(self, old: u64) -> u64 {
        match self {
            Value::Small(n) => u64::from(n),
            Value::Add(n) => old.wrapping_add_signed(i64::from(n)),
            Value::Bit(n) => old ^ (1 << (n % 64)),
            Value::Power(n, more) => (1u64 << (n % 64)).wrapping_add_signed(i64::from(more)),
            Value::Any(n) => n,
        }
    }
}

/// A number in a header: byte offset and width in bytes.
pub type Field = (usize, usize);

/// Reads a number of up to 8 bytes; bytes that aren't there are 0.
pub fn get(from: &[u8], (at, width): Field) -> u64 {
    let mut bytes = [0; 8];
    if let Some(found) = from.get(at..at + width) {
        bytes[..width].copy_from_slice(found);
    }
    u64::from_le_bytes(bytes)
}

/// Writes a number, cut to the field's width; nothing if the field isn't there.
pub fn put(to: &mut [u8], (at, width): Field, value: u64) {
    if let Some(place) = to.get_mut(at..at + width) {
        place.copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// Replaces a number by `value`.
pub fn edit(bytes: &mut [u8], field: Field, value: Value) {
    let old = get(bytes, field);
    put(bytes, field, value.of(old));
}

/// One of `list`, which isn't empty.
pub fn pick<T>(list: &[T], n: u8) -> &T {
    &list[usize::from(n) % list.len()]
}

/// Writes the CRC-32 of everything before `at` there.
pub fn seal(bytes: &mut [u8], at: usize) {
    if let Some(covered) = bytes.get(..at) {
        let crc = crc32fast::hash(covered);
        put(bytes, (at, 4), u64::from(crc));
    }
}
