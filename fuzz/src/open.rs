//! stub
/// stub
pub fn run(_: &[u8]) -> String { String::new() }
/// stub
pub fn describe(_: &[u8]) -> String { String::new() }
