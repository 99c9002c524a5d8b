//! Bytes that came from an observed process: kept without loss, never trusted.

use serde::{Deserialize, Serialize};

/// A text from an observed process in a form that JSON can carry without loss.
///
/// Valid UTF-8 is kept as it is. Anything else is percent-encoded: each byte that is not printable ASCII,
/// and `%` itself, becomes `%XX`; the field next to it says so (`path_encoding: "percent"`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObservedText(pub String);

/// The value of a `*_encoding` field for texts that are percent-encoded.
pub const PERCENT: &str = "percent";

/// Turns observed bytes into text without loss; the second value says whether it had to be encoded.
#[must_use]
pub fn encode(bytes: &[u8]) -> (ObservedText, bool) {
    encode_vec(bytes.to_vec())
}

/// As [`encode`], without a copy of what is text already.
#[must_use]
pub fn encode_vec(bytes: Vec<u8>) -> (ObservedText, bool) {
    match String::from_utf8(bytes) {
        Ok(text) => (ObservedText(text), false),
        Err(error) => (ObservedText(percent_encode(error.as_bytes())), true),
    }
}

/// Encodes bytes also where they are UTF-8: for lists of which another member is not.
#[must_use]
pub fn encode_always(bytes: &[u8]) -> ObservedText {
    ObservedText(percent_encode(bytes))
}

/// Gives back the bytes that [`encode`] was given.
///
/// # Errors
/// A `%` that two hexadecimal digits do not follow, in a text said to be encoded.
pub fn decode(text: &ObservedText, encoded: bool) -> Result<Vec<u8>, BadPercent> {
    if !encoded {
        return Ok(text.0.as_bytes().to_vec());
    }
    let mut bytes = Vec::with_capacity(text.0.len());
    let mut rest = text.0.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = rest.next().and_then(hex_value).ok_or(BadPercent)?;
            let low = rest.next().and_then(hex_value).ok_or(BadPercent)?;
            bytes.push(high << 4 | low);
        } else {
            bytes.push(byte);
        }
    }
    Ok(bytes)
}

/// A `%` without two hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a `%` in this percent-encoded text is not followed by two hexadecimal digits")]
pub struct BadPercent;

fn percent_encode(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for &byte in bytes {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn utf8_is_kept_and_other_bytes_are_encoded() {
        assert_eq!(encode("/tmp/ü%20".as_bytes()), (ObservedText("/tmp/ü%20".into()), false));
        assert_eq!(encode(b"/tmp/\xff%"), (ObservedText("/tmp/%FF%25".into()), true));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (text, encoded) = encode(&bytes);
            prop_assert_eq!(decode(&text, encoded).unwrap(), bytes);
        }
    }
}
