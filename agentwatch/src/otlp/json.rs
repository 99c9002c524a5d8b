//! `ExportTraceServiceRequest` in JSON, as OTLP writes it: names in camel case, ids in hexadecimal digits, whole numbers of
//! 64 bits as numbers or texts.
//!
//! Each level is read by itself, its parts as the texts that they are: so what is in memory at once is not many times as large
//! as what came.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Error, Map, Value as Json};

use super::Export;
use super::span::{DEPTH_MAX, Raw, STRUCTURE_BYTES, Unfit, is_wanted};

type Parts<'a> = Option<Vec<&'a RawValue>>;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default, rename = "resourceSpans")]
    resources: Parts<'a>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow, default, rename = "scopeSpans")]
    scopes: Parts<'a>,
}

#[derive(Deserialize)]
struct Scope<'a> {
    #[serde(borrow, default)]
    spans: Parts<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    #[serde(borrow, default)]
    trace_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    span_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    parent_span_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(default)]
    start_time_unix_nano: Option<Whole<u64>>,
    #[serde(default)]
    end_time_unix_nano: Option<Whole<u64>>,
    #[serde(borrow, default)]
    attributes: Parts<'a>,
    #[serde(borrow, default)]
    status: Option<Status<'a>>,
}

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
    #[serde(default)]
    code: Option<Whole<u64>>,
}

#[derive(Deserialize)]
struct Attribute<'a> {
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text<'a> {
    #[serde(borrow)]
    string_value: Cow<'a, str>,
}

/// A whole number, or the text of one.
#[derive(Clone, Copy)]
struct Whole<T>(T);

impl<'de, T: std::str::FromStr + Deserialize<'de>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either<T> {
            Number(T),
            Text(String),
        }
        match Either::deserialize(from)? {
            Either::Number(number) => Ok(Self(number)),
            Either::Text(text) => {
                text.parse().map(Self).map_err(|_| serde::de::Error::custom("a text is no whole number"))
            }
        }
    }
}

/// Reads a request.
pub(super) fn read(body: &[u8]) -> Result<Export, Error> {
    let mut export = Export::default();
    let body = serde_json::from_slice::<&RawValue>(body)?;
    for resource in part::<Request<'_>>(body)?.resources.into_iter().flatten() {
        for scope in part::<Resource<'_>>(resource)?.scopes.into_iter().flatten() {
            for span in part::<Scope<'_>>(scope)?.spans.into_iter().flatten() {
                export.take(raw(part(span)?)?);
            }
        }
    }
    Ok(export)
}

fn part<'a, T: Deserialize<'a>>(text: &'a RawValue) -> Result<T, Error> {
    // A list of the values of its fields would do, too.
    if !text.get().starts_with('{') {
        return Err(serde::de::Error::custom("something else is where an object should be"));
    }
    serde_json::from_str(text.get())
}

fn raw(span: Span<'_>) -> Result<Result<Raw, Unfit>, Error> {
    let id = |text: Option<Cow<'_, str>>| bytes(text.as_deref().unwrap_or_default());
    let time = |time: Option<Whole<u64>>| time.map_or(0, |Whole(time)| time);
    let status = span.status.unwrap_or(Status { message: None, code: None });
    let mut raw = Raw {
        trace: id(span.trace_id),
        id: id(span.span_id),
        parent: id(span.parent_span_id),
        name: span.name.unwrap_or_default().into_owned(),
        start_ns: time(span.start_time_unix_nano),
        end_ns: time(span.end_time_unix_nano),
        code: time(status.code),
        message: status.message.unwrap_or_default().into_owned(),
        ..Raw::default()
    };
    let mut unfit = None;
    for text in span.attributes.into_iter().flatten() {
        let Attribute { key, value } = part(text)?;
        let key = key.unwrap_or_default();
        if !is_wanted(&key) {
            continue;
        }
        let Some(value) = value else {
            raw.attributes.set(&key, Some(&Json::Null));
            continue;
        };
        if value.get().len() > STRUCTURE_BYTES {
            let text = part::<Text<'_>>(value).ok().map(|text| Json::from(text.string_value));
            raw.attributes.set(&key, text.as_ref());
            continue;
        }
        // It is well-formed: what fails is its depth.
        match serde_json::from_str(value.get())
            .map_err(|_| Unfit::TooDeep)
            .and_then(|value| any_value(value, 0))
        {
            Ok(value) => raw.attributes.set(&key, Some(&value)),
            Err(error) => unfit = Some(error),
        }
    }
    Ok(unfit.map_or(Ok(raw), Err))
}

/// The bytes of hexadecimal digits; none where they are something else.
fn bytes(text: &str) -> Vec<u8> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2)).unwrap_or_default();
    digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8)).collect()
}

/// A value of OTLP as the JSON that it stands for.
fn any_value(value: Json, depth: usize) -> Result<Json, Unfit> {
    if depth >= DEPTH_MAX {
        return Err(Unfit::TooDeep);
    }
    let Json::Object(fields) = value else { return Ok(Json::Null) };
    let mut found = Json::Null;
    for (name, value) in fields {
        found = match (name.as_str(), value) {
            ("stringValue", text @ Json::String(_)) => text,
            ("boolValue", flag @ Json::Bool(_)) => flag,
            ("intValue", Json::String(text)) => text.parse::<i64>().map_or(Json::Null, Json::from),
            ("intValue" | "doubleValue", number @ Json::Number(_)) => number,
            ("arrayValue", list) => {
                let values = parts(list, "values").into_iter().map(|value| any_value(value, depth + 1));
                Json::Array(values.collect::<Result<_, _>>()?)
            }
            ("kvlistValue", list) => {
                let mut kept = Map::new();
                for field in parts(list, "values") {
                    let Json::Object(mut field) = field else { continue };
                    let key = field.remove("key").and_then(|key| key.as_str().map(str::to_owned));
                    let value = any_value(field.remove("value").unwrap_or_default(), depth + 1)?;
                    kept.insert(key.unwrap_or_default(), value);
                }
                Json::Object(kept)
            }
            // Bytes say nothing to people.
            _ => found,
        };
    }
    Ok(found)
}

fn parts(list: Json, name: &str) -> Vec<Json> {
    match list {
        Json::Object(mut fields) => match fields.remove(name) {
            Some(Json::Array(values)) => values,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}
