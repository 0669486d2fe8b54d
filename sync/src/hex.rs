//! Bytes as lower-case hexadecimal digits, which is how they stand in text.

use serde::{Deserialize, Deserializer, Serializer};

/// The digits.
pub(crate) fn print(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of exactly so many digits; `None` if they are none.
pub(crate) fn parse<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.len() != 2 * N || !digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    let mut out = [0; N];
    for (n, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(out)
}

/// For `#[serde(with = …)]`.
pub(crate) fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&print(bytes))
}

/// For `#[serde(with = …)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(from: D) -> Result<[u8; N], D::Error> {
    let digits = String::deserialize(from)?;
    parse(&digits)
        .ok_or_else(|| serde::de::Error::custom(format!("{digits:?} isn't {N} bytes in hexadecimal")))
}

/// The same for a number of 64 bits, of which not every reader of JSON keeps all.
pub(crate) mod number {
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        super::serialize(&number.to_be_bytes(), to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        super::deserialize(from).map(u64::from_be_bytes)
    }
}

/// The same for one that may not be there.
pub(crate) mod optional_number {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(number: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match number {
            Some(number) => super::number::serialize(number, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        #[derive(Deserialize)]
        struct Number(#[serde(with = "super::number")] u64);
        Option::<Number>::deserialize(from).map(|number| number.map(|Number(number)| number))
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, print};

    #[test]
    fn what_is_printed_is_parsed() {
        assert_eq!(print(&[0, 0x1f, 0xff]), "001fff");
        assert_eq!(parse("001fff"), Some([0, 0x1f, 0xff]));
        for wrong in ["", "0", "001ff", "001fff0", "001fFf", "00 fff", "é1fff"] {
            assert_eq!(parse::<3>(wrong), None, "{wrong:?}");
        }
    }
}
