//! How much history is kept, in words.

use std::fmt;
use std::str::FromStr;

use crate::error::{Code, Error, Result};
use crate::format::Retention;

/// What is in force until somebody says otherwise.
const DEFAULT: &str = "64 MiB or 10000 lsns";

/// Letters of what wasn't understood that are said again, at most.
const SAID_AGAIN: usize = 64;

/// Units of time in seconds, the largest first.
const TIMES: [(&str, u64); 5] =
    [("week", 604_800), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)];

/// Units of size in bytes, the largest first.
const SIZES: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1000),
    ("byte", 1),
    ("B", 1),
];

impl FromStr for Retention {
    type Err = Error;

    /// Reads `7 days`, `12 hours`, `1 GB`, `64 MiB`, `10000 lsns`, `none` or `default`; the case of
    /// letters and the blank between number and unit don't matter. KB is 1000 bytes, KiB 1024.
    ///
    /// # Errors
    /// `Argument`.
    fn from_str(text: &str) -> Result<Retention> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("none") {
            return Ok(Retention::None);
        }
        if text.eq_ignore_ascii_case("default") || text.eq_ignore_ascii_case(DEFAULT) {
            return Ok(Retention::Default);
        }
        amount(text).ok_or_else(|| {
            let said: String = text.chars().take(SAID_AGAIN).collect();
            Error::new(
                Code::Argument,
                format!("{said:?} says no amount of history; give something like '7 days', '1 GB', '10000 lsns' or 'none'"),
            )
        })
    }
}

fn amount(text: &str) -> Option<Retention> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok().filter(|&number| number > 0)?;
    let unit = unit.trim_start();
    // SQL has no larger integers either.
    let in_all = |each: u64| number.checked_mul(each).filter(|&all| i64::try_from(all).is_ok());
    let is = |name: &str| {
        let plural = unit.len() == name.len() + 1 && unit.ends_with(['s', 'S']);
        let singular = if plural { &unit[..name.len()] } else { unit };
        singular.eq_ignore_ascii_case(name)
    };
    if is("lsn") {
        return in_all(1).map(Retention::Lsns);
    }
    if let Some((_, seconds)) = TIMES.iter().find(|(name, _)| is(name)) {
        return in_all(*seconds).map(Retention::Seconds);
    }
    let (_, bytes) = SIZES.iter().find(|(name, _)| is(name))?;
    in_all(*bytes).map(Retention::Bytes)
}

impl fmt::Display for Retention {
    /// Writes it so that reading it gives the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Retention::Default => f.write_str(DEFAULT),
            Retention::None => f.write_str("none"),
            Retention::Lsns(1) => f.write_str("1 lsn"),
            Retention::Lsns(n) => write!(f, "{n} lsns"),
            // Days are what people say, not weeks.
            Retention::Seconds(n) => f.write_str(&in_units(n, &TIMES[1..], true)),
            Retention::Bytes(n) => f.write_str(&in_units(n, &SIZES, false)),
        }
    }
}

/// In the largest unit of which it is a whole number.
fn in_units(n: u64, units: &[(&str, u64)], plural: bool) -> String {
    let whole = units.iter().find(|(_, each)| n >= *each && n.is_multiple_of(*each));
    let (unit, each) = whole.copied().unwrap_or(("byte", 1));
    let count = n / each;
    let ending = if count != 1 && (plural || unit == "byte") { "s" } else { "" };
    format!("{count} {unit}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_said_again() {
        for (text, retention, again) in [
            ("7 days", Retention::Seconds(604_800), "7 days"),
            ("1 day", Retention::Seconds(86_400), "1 day"),
            ("2 weeks", Retention::Seconds(1_209_600), "14 days"),
            ("12 hours", Retention::Seconds(43_200), "12 hours"),
            ("24 hours", Retention::Seconds(86_400), "1 day"),
            ("30 minutes", Retention::Seconds(1800), "30 minutes"),
            ("90 seconds", Retention::Seconds(90), "90 seconds"),
            ("1 GB", Retention::Bytes(1_000_000_000), "1 GB"),
            ("2 MB", Retention::Bytes(2_000_000), "2 MB"),
            ("64 MiB", Retention::Bytes(64 << 20), "64 MiB"),
            ("1000 KiB", Retention::Bytes(1_024_000), "1000 KiB"),
            ("4097 bytes", Retention::Bytes(4097), "4097 bytes"),
            ("1 B", Retention::Bytes(1), "1 byte"),
            ("10000 lsns", Retention::Lsns(10_000), "10000 lsns"),
            ("1 lsn", Retention::Lsns(1), "1 lsn"),
            ("none", Retention::None, "none"),
            ("default", Retention::Default, DEFAULT),
            (DEFAULT, Retention::Default, DEFAULT),
            ("  3DAYS ", Retention::Seconds(259_200), "3 days"),
            ("1gib", Retention::Bytes(1 << 30), "1 GiB"),
            ("NONE", Retention::None, "none"),
        ] {
            assert_eq!(text.parse().ok(), Some(retention), "{text}");
            assert_eq!(retention.to_string(), again, "{text}");
            assert_eq!(again.parse().ok(), Some(retention), "{again}");
        }
    }

    #[test]
    fn anything_else_is_an_argument_that_makes_no_sense() {
        for text in [
            "",
            " ",
            "much",
            "-3 days",
            "3 parsecs",
            "lsns",
            "7",
            "0 days",
            "1.5 GB",
            "days 7",
            "7 dayss",
            "s",
            "1 s",
            "99999999999999999999 lsns",
            "9223372036854775807 days",
            "10000000 TiB",
            "7 days ago",
            "7 日",
            "日本",
            "none at all",
            "\0none",
            &"much ".repeat(1000),
        ] {
            let error = text.parse::<Retention>().unwrap_err();
            assert_eq!(error.code(), Code::Argument, "{text}");
            assert!(error.text().contains("; ") && error.text().len() < 300, "{error}");
            assert!(!error.text().contains('\0'), "{error}");
        }
    }
}
