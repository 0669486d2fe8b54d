//! Options as a host writes them: a JSON object that has each name once.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// Options of a remote, or of a task, by their names.
pub type Options = serde_json::Map<String, Value>;

/// Why a text isn't options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is no JSON object.
    NoObject,
    /// It has this name twice, and one of both isn't meant.
    Twice(String),
}

/// Reads options.
///
/// # Errors
/// What they aren't. What is in them isn't told: it may be secret.
pub fn options(text: &str) -> Result<Options, Unread> {
    match serde_json::from_str(text) {
        Ok(Once { twice: Some(name), .. }) => Err(Unread::Twice(name)),
        Ok(Once { options, twice: None }) => Ok(options),
        Err(_) => Err(Unread::NoObject),
    }
}

/// What is read, and a name that came again.
#[derive(Default)]
struct Once {
    options: Options,
    twice: Option<String>,
}

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Once, D::Error> {
        struct Reading;

        impl<'de> Visitor<'de> for Reading {
            type Value = Once;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut read = Once::default();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if read.options.insert(name.clone(), value).is_some() {
                        read.twice = Some(name);
                    }
                }
                Ok(read)
            }
        }

        deserializer.deserialize_map(Reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_there_once() {
        let read = options(r#" {"a": 1, "b": null, "c": {"a": 2}} "#).unwrap();
        assert_eq!(read.len(), 3);
        assert_eq!(options("{}").unwrap().len(), 0);
        assert_eq!(options(r#"{"a": 1, "b": 2, "a": 1}"#), Err(Unread::Twice("a".into())));
        for text in ["", "[]", "7", "null", r#"{"a": 1"#, r#"{"a": 1} x"#, r#"["a", 1]"#] {
            assert_eq!(options(text), Err(Unread::NoObject), "{text}");
        }
    }
}
