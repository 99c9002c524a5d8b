//! Writes values as JSON, byte for byte as `serde_json` does, for three fifths of the instructions.
//!
//! Every event pays for this. `serde_json` looks at each byte of a text by itself, names of fields included;
//! here eight or more are looked at together.

use std::fmt::Display;

use serde::ser::{self, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct};
use serde_json::Error;

/// Appends a value to `out`. After an error, what was appended is of no use.
///
/// # Errors
/// The value has a part that JSON cannot hold, or that no event has: bytes, or an enum with fields.
pub fn write(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
    value.serialize(Writer::new(out))
}

/// As [`write`], with a field of the value whose text is known: that of its own part is not made again.
///
/// # Errors
/// As [`write`].
pub fn write_with(
    out: &mut Vec<u8>,
    value: &(impl Serialize + ?Sized),
    known: Option<(&str, &[u8])>,
) -> Result<(), Error> {
    value.serialize(Writer { out, known })
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Name and text of a field of the value itself.
    known: Option<(&'a str, &'a [u8])>,
}

impl<'a> Writer<'a> {
    const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, known: None }
    }
}

/// A list or an object that is being written.
struct Parts<'a> {
    out: &'a mut Vec<u8>,
    any: bool,
    close: u8,
    known: Option<(&'a str, &'a [u8])>,
}

/// Appends a text in quotation marks.
fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some((plain, [byte, after @ ..])) = first_escaped(rest).and_then(|at| rest.split_at_checked(at))
    {
        out.extend_from_slice(plain);
        escape(out, *byte);
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Where the first byte is that must be escaped.
fn first_escaped(bytes: &[u8]) -> Option<usize> {
    let blocks = bytes.as_chunks::<BLOCK>().0;
    let plain = BLOCK * blocks.iter().take_while(|block| is_plain(block)).count();
    match bytes.last_chunk::<8>() {
        Some(last) => {
            let (words, rest) = bytes.get(plain..).unwrap_or_default().as_chunks::<8>();
            let in_words =
                words.iter().zip(0..).find_map(|(word, at)| Some(plain + at * 8 + escaped_in(word)?));
            // The last eight bytes again: those of them that are in `words` are known to be plain.
            let in_rest = || if rest.is_empty() { None } else { Some(bytes.len() - 8 + escaped_in(last)?) };
            in_words.or_else(in_rest)
        }
        None => bytes.iter().position(|&byte| must_escape(byte)),
    }
}

/// Bytes that are looked at together in the middle of a long text.
const BLOCK: usize = 32;

/// Whether nothing of it must be escaped. Without a way out in the middle, so that the compiler compares many at once.
fn is_plain(block: &[u8; BLOCK]) -> bool {
    !block.iter().fold(false, |any, &byte| any | must_escape(byte))
}

/// Where the first byte is that must be escaped. All eight are compared at once, each in its own lane: a
/// lane's top bit is set where it is below a blank, or zero after `^`.
fn escaped_in(bytes: &[u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    let word = u64::from_le_bytes(*bytes);
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let (quote, backslash) = (word ^ (ONES * u64::from(b'"')), word ^ (ONES * u64::from(b'\\')));
    // A borrow sets lanes above a found one wrongly, never the first.
    let found = (below(word, b' ') | below(quote, 1) | below(backslash, 1)) & TOPS;
    if found == 0 { None } else { usize::try_from(found.trailing_zeros() / 8).ok() }
}

const fn must_escape(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\')
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

impl<'a> Parts<'a> {
    fn open(out: &'a mut Vec<u8>, open: u8, close: u8) -> Self {
        out.push(open);
        Self { out, any: false, close, known: None }
    }

    fn next(&mut self) {
        if self.any {
            self.out.push(b',');
        }
        self.any = true;
    }

    fn close(self) {
        self.out.push(self.close);
    }
}

fn refused<T>(what: &str) -> Result<T, Error> {
    Err(ser::Error::custom(format_args!("events are written without {what}")))
}

macro_rules! numbers {
    ($($method:ident: $type:ty,)+) => {
        $(fn $method(self, value: $type) -> Result<(), Error> {
            serde_json::to_writer(self.out, &value)
        })+
    };
}

impl<'a> ser::Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Impossible<(), Error>;

    numbers! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_f32: f32,
        serialize_f64: f64,
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        write_text(self.out, value.encode_utf8(&mut [0; 4]));
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        write_text(self.out, value);
        Ok(())
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Error> {
        self.serialize_str(&value.to_string())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Error> {
        refused("bytes")
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        refused("enums with fields")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'a>, Error> {
        Ok(Parts::open(self.out, b'[', b']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Impossible<(), Error>, Error> {
        refused("tuples")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Impossible<(), Error>, Error> {
        refused("tuples")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Impossible<(), Error>, Error> {
        refused("enums with fields")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<'a>, Error> {
        Ok(Parts { known: self.known, ..Parts::open(self.out, b'{', b'}') })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, Error> {
        Ok(Parts { known: self.known, ..Parts::open(self.out, b'{', b'}') })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Impossible<(), Error>, Error> {
        refused("enums with fields")
    }
}

impl SerializeSeq for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.next();
        value.serialize(Writer::new(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

impl SerializeStruct for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        self.next();
        // Names of fields are our own and hold nothing to escape.
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        match self.known {
            Some((known, text)) if known == name => {
                self.out.extend_from_slice(text);
                Ok(())
            }
            _ => value.serialize(Writer::new(self.out)),
        }
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

impl SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.next();
        let start = self.out.len();
        key.serialize(Writer::new(self.out))?;
        if self.out.get(start) != Some(&b'"') {
            return refused("keys that are no text");
        }
        self.out.push(b':');
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(Writer::new(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn written(value: &impl Serialize) -> String {
        let mut out = Vec::new();
        write(&mut out, value).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_byte_is_escaped_as_it_must_be_wherever_it_stands() {
        for byte in 0..=0x7f_u8 {
            for before in 0..80 {
                let text = format!("{}{}{}", "x".repeat(before), char::from(byte), "ü".repeat(80 - before));
                assert_eq!(written(&text), serde_json::to_string(&text).unwrap());
            }
        }
    }

    #[test]
    fn values_are_written_as_serde_json_writes_them() {
        let event = super::super::testing::event(7, "coding-7f3k2q");
        assert_eq!(written(&event), serde_json::to_string(&event).unwrap());
        let value = json!({"a": [], "b": {}, "c": [1, -2, 2.5, null, true, {"d\"": "e"}], "f": u64::MAX});
        assert_eq!(written(&value), value.to_string());
        assert_eq!(written(&(Some('"'))), r#""\"""#);
    }

    #[test]
    fn a_known_text_takes_the_place_of_its_field_and_of_no_other() {
        let event = super::super::testing::event(7, "coding-7f3k2q");
        let mut out = Vec::new();
        write_with(&mut out, &event, Some(("kind", b"\"file.open\""))).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            serde_json::to_string(&event).unwrap().replacen(
                &serde_json::to_string(&event.kind).unwrap(),
                "\"file.open\"",
                1
            )
        );
        let mut out = Vec::new();
        write_with(&mut out, &event, Some(("pid", b"0"))).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&event).unwrap());
    }

    #[test]
    fn what_events_do_not_have_is_refused_and_not_written_wrongly() {
        assert!(write(&mut Vec::new(), &(1, 2)).is_err());
        assert!(write(&mut Vec::new(), &Ok::<u8, u8>(1)).is_err());
        assert!(write(&mut Vec::new(), &std::collections::BTreeMap::from([(1, 2)])).is_err());
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = proptest::collection::vec(
            prop_oneof![any::<char>(), proptest::char::range('\0', '\u{80}')],
            0..50,
        )
        .prop_map(String::from_iter);
        let leaf = prop_oneof![
            text.clone().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(text.clone(), inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_is_written_as_serde_json_writes_it(value in values()) {
            prop_assert_eq!(written(&value), value.to_string());
        }
    }
}
