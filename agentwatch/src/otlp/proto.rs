//! `ExportTraceServiceRequest` in protocol buffers.

use serde_json::{Map, Value as Json};

use super::span::{DEPTH_MAX, Raw, STRUCTURE_BYTES, Unfit, is_wanted};
use super::wire::{Value, fields, text};
use super::{Export, Malformed};

/// Why a message cannot be read, or a span of it does not count.
enum Trouble {
    Malformed(Malformed),
    Unfit(Unfit),
}

impl From<Malformed> for Trouble {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Reads a request.
pub(super) fn read(body: &[u8]) -> Result<Export, Malformed> {
    let mut export = Export::default();
    for resource in messages(body, 1) {
        for scope in messages(resource?, 2) {
            for message in messages(scope?, 2) {
                match span(message?) {
                    Ok(raw) => export.take(Ok(raw)),
                    Err(Trouble::Unfit(unfit)) => export.take(Err(unfit)),
                    Err(Trouble::Malformed(malformed)) => return Err(malformed),
                }
            }
        }
    }
    Ok(export)
}

/// The messages of one field.
fn messages(message: &[u8], wanted: u32) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    fields(message).filter_map(move |field| match field {
        Ok((number, Value::Bytes(bytes))) if number == wanted => Some(Ok(bytes)),
        Ok(_) => None,
        Err(malformed) => Some(Err(malformed)),
    })
}

fn span(message: &[u8]) -> Result<Raw, Trouble> {
    let (mut raw, mut unfit) = (Raw::default(), None);
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(id)) => raw.trace = id.to_vec(),
            (2, Value::Bytes(id)) => raw.id = id.to_vec(),
            (4, Value::Bytes(id)) => raw.parent = id.to_vec(),
            (5, Value::Bytes(name)) => text(name)?.clone_into(&mut raw.name),
            (7, Value::Fixed64(time)) => raw.start_ns = time,
            (8, Value::Fixed64(time)) => raw.end_ns = time,
            (9, Value::Bytes(message)) => match attribute(message, &mut raw) {
                // The rest is looked at all the same: what is malformed is so as a whole.
                Err(Trouble::Unfit(error)) => unfit = Some(error),
                other => other?,
            },
            (15, Value::Bytes(message)) => status(message, &mut raw)?,
            _ => {}
        }
    }
    unfit.map_or(Ok(raw), |unfit| Err(Trouble::Unfit(unfit)))
}

fn status(message: &[u8], raw: &mut Raw) -> Result<(), Malformed> {
    for field in fields(message) {
        match field? {
            (2, Value::Bytes(message)) => text(message)?.clone_into(&mut raw.message),
            (3, Value::Varint(code)) => raw.code = code,
            _ => {}
        }
    }
    Ok(())
}

fn attribute(message: &[u8], raw: &mut Raw) -> Result<(), Trouble> {
    let (key, value) = key_and_value(message)?;
    if is_wanted(key) {
        let is_long = value.len() > STRUCTURE_BYTES && long_text(value)?.is_none();
        let value = if is_long { None } else { Some(any_value(value, 0)?) };
        raw.attributes.set(key, value.as_ref());
    }
    Ok(())
}

fn key_and_value(message: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    let (mut key, mut value) = ("", &[][..]);
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(bytes)) => key = text(bytes)?,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((key, value))
}

/// The text that a value is, where it is one.
fn long_text(value: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let mut found = None;
    for field in fields(value) {
        found = match field? {
            (1, Value::Bytes(bytes)) => Some(bytes),
            (2..=7, _) => None,
            _ => found,
        };
    }
    Ok(found)
}

fn any_value(message: &[u8], depth: usize) -> Result<Json, Trouble> {
    if depth >= DEPTH_MAX {
        return Err(Trouble::Unfit(Unfit::TooDeep));
    }
    let mut found = Json::Null;
    for field in fields(message) {
        found = match field? {
            (1, Value::Bytes(bytes)) => Json::from(text(bytes)?),
            (2, Value::Varint(value)) => Json::from(value != 0),
            (3, Value::Varint(value)) => Json::from(value.cast_signed()),
            (4, Value::Fixed64(bits)) => Json::from(f64::from_bits(bits)),
            (5, Value::Bytes(list)) => {
                let values = messages(list, 1).map(|value| any_value(value?, depth + 1));
                Json::Array(values.collect::<Result<_, _>>()?)
            }
            (6, Value::Bytes(list)) => {
                let mut fields = Map::new();
                for message in messages(list, 1) {
                    let (key, value) = key_and_value(message?)?;
                    fields.insert(key.to_owned(), any_value(value, depth + 1)?);
                }
                Json::Object(fields)
            }
            // Bytes say nothing to people.
            (7, Value::Bytes(_)) => Json::Null,
            _ => found,
        };
    }
    Ok(found)
}
