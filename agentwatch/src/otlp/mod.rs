//! Spans as OTLP/HTTP brings them, in protocol buffers and in JSON: of all that comes the calls of tools and what was
//! retrieved for a model, by the GenAI conventions (`gen_ai.operation.name` is `execute_tool` or `retrieval`).
//!
//! What comes is hostile: it is read field by field without recursion, but for the values of the few attributes that are
//! looked at, which have bounds of their own. Nothing here knows who sent it.

mod answer;
mod json;
mod packed;
mod proto;
mod span;
#[cfg(test)]
mod tests;
mod wire;

pub use self::answer::{failed, taken};
pub use self::packed::{Packed, unpack};
pub use self::span::{Documents, Done, Retrieval, Span, Tool};
use self::span::{Raw, Unfit};
use crate::calls::beginning;

/// Spans that are taken of one request: exporters send 512 spans of all kinds at most, where nobody says
/// otherwise. What is more is refused.
pub const SPANS_MAX: usize = 512;

/// Characters of what is wrong with a request that are told.
const ERROR_CHARS: usize = 200;

/// The two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Protocol buffers: `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

/// Why a request cannot be read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

/// What a request holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// Those that tell of something that counts.
    pub spans: Vec<Span>,
    /// What is not taken.
    pub refused: Refused,
}

/// Spans that are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// How many.
    pub count: u64,
    /// Why the first is, in one sentence.
    pub why: Option<String>,
}

impl Refused {
    /// Counts one.
    pub fn add(&mut self, why: impl Into<String>) {
        self.count += 1;
        self.why.get_or_insert_with(|| why.into());
    }
}

impl Export {
    /// Takes a span, where it tells of something that counts.
    fn take(&mut self, raw: Result<Raw, Unfit>) {
        match raw.and_then(Span::of) {
            Ok(Some(_)) if self.spans.len() >= SPANS_MAX => {
                self.refused.add(format!(
                    "more than {SPANS_MAX} calls of tools or retrievals at once: send smaller batches"
                ));
            }
            Ok(Some(span)) => self.spans.push(span),
            // A span of something else.
            Ok(None) => {}
            Err(unfit) => self.refused.add(unfit.to_string()),
        }
    }
}

/// Reads the body of `POST /v1/traces`.
///
/// # Errors
/// It is malformed: then nothing of it counts.
pub fn read(body: &[u8], form: Form) -> Result<Export, String> {
    match form {
        Form::Protobuf => proto::read(body).map_err(|error| error.to_string()),
        // It may quote what came.
        Form::Json => json::read(body).map_err(|error| beginning(&error.to_string(), ERROR_CHARS)),
    }
}
