//! A span, and what of it tells of the call of a tool, or of what was retrieved for a model.

use serde::Deserialize;
use serde_json::Value;

use crate::calls::{beginning, in_short};

/// Characters of a name or an id that are kept.
const NAME_CHARS: usize = 256;
/// Characters of what a tool gave that are kept.
const OUTPUT_CHARS: usize = 1_024;
/// Bytes of a structured attribute, as it comes. A longer one is not read: in memory it is many times as large.
pub(super) const STRUCTURE_BYTES: usize = 64 * 1024;
/// How deep values may lie in each other.
pub(super) const DEPTH_MAX: usize = 16;
/// Documents whose ids are kept.
const DOCUMENTS_MAX: usize = 64;
/// The attribute with the documents that were retrieved.
const DOCUMENTS: &str = "gen_ai.retrieval.documents";
/// What of a name begins the name of a span that has no name of a tool.
const SPAN_NAME: &str = "execute_tool ";

/// Why a span is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("the id of a trace has 16 bytes, and that of a span 8, which are not all 0")]
    Id,
    #[error("the values of an attribute lie deeper in each other than {DEPTH_MAX} levels")]
    TooDeep,
    #[error(
        "the call of a tool has neither `gen_ai.tool.name` nor a name of the span such as `execute_tool NAME`"
    )]
    NoName,
}

/// A span as it comes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Raw {
    pub trace: Vec<u8>,
    pub id: Vec<u8>,
    pub parent: Vec<u8>,
    pub name: String,
    pub start_ns: u64,
    pub end_ns: u64,
    /// The status: 2 is an error.
    pub code: u64,
    pub message: String,
    pub attributes: Attributes,
}

/// The attributes that are looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Attributes {
    operation: Option<String>,
    tool: Option<String>,
    call: Option<String>,
    conversation: Option<String>,
    error: Option<String>,
    arguments: Option<String>,
    result: Option<String>,
    source: Option<String>,
    documents: Option<Documents>,
}

/// Whether an attribute is looked at.
pub(super) fn is_wanted(key: &str) -> bool {
    key == DOCUMENTS || Attributes::default().place(key).is_some()
}

impl Attributes {
    fn place(&mut self, key: &str) -> Option<&mut Option<String>> {
        Some(match key {
            "gen_ai.operation.name" => &mut self.operation,
            "gen_ai.tool.name" => &mut self.tool,
            "gen_ai.tool.call.id" => &mut self.call,
            "gen_ai.conversation.id" => &mut self.conversation,
            "error.type" => &mut self.error,
            "gen_ai.tool.call.arguments" => &mut self.arguments,
            "gen_ai.tool.call.result" => &mut self.result,
            "gen_ai.data_source.id" => &mut self.source,
            _ => return None,
        })
    }

    /// Keeps one, in short. `None` is a value that is too long to be read.
    pub(super) fn set(&mut self, key: &str, value: Option<&Value>) {
        if key == DOCUMENTS {
            self.documents = value.and_then(documents);
            return;
        }
        let kept = match (key, value) {
            (_, None) => Some("…".to_owned()),
            ("gen_ai.tool.call.arguments", Some(value)) => arguments(value),
            ("gen_ai.tool.call.result", Some(value)) => text(value, OUTPUT_CHARS),
            (_, Some(value)) => text(value, NAME_CHARS),
        };
        if let Some(place) = self.place(key) {
            *place = kept.filter(|text| !text.is_empty());
        }
    }
}

/// What a tool was told. Most SDKs give it as JSON in a text.
fn arguments(value: &Value) -> Option<String> {
    if let Value::String(text) = value {
        let object = Some(text).filter(|text| text.len() <= STRUCTURE_BYTES);
        let object = object.and_then(|text| serde_json::from_str::<Value>(text).ok());
        return match object.filter(Value::is_object) {
            Some(object) => in_short(&object),
            None => in_short(value).filter(|_| !text.is_empty()),
        };
    }
    in_short(value)
}

fn text(value: &Value, chars: usize) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(beginning(text, chars)),
        other => Some(beginning(&other.to_string(), chars)),
    }
}

/// What was retrieved, where it can be read. Most SDKs give it as JSON in a text.
fn documents(value: &Value) -> Option<Documents> {
    /// A document: its text, where it has one, is not ours.
    #[derive(Deserialize)]
    struct Document {
        id: Option<Value>,
    }
    let all: Vec<Document> = match value {
        Value::String(text) if text.len() > STRUCTURE_BYTES => return None,
        Value::String(text) => serde_json::from_str(text).ok()?,
        other => Vec::deserialize(other).ok()?,
    };
    let ids = all.iter().filter_map(|document| text(document.id.as_ref()?, NAME_CHARS));
    Some(Documents { ids: ids.take(DOCUMENTS_MAX).collect(), count: all.len() as u64 })
}

/// Documents that were retrieved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents {
    /// Ids of the first of them, those that have one.
    pub ids: Vec<String>,
    /// How many there are.
    pub count: u64,
}

/// What an agent did, told when it is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Id of the trace, in hexadecimal digits.
    pub trace: String,
    /// Id of the span.
    pub id: String,
    /// Id of the span above.
    pub parent: Option<String>,
    /// When it began, nanoseconds since 1970, as the sender says.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// Id of the conversation.
    pub conversation: Option<String>,
    /// What it gave, or the message of its error.
    pub output: Option<String>,
    /// Whether it failed.
    pub failed: bool,
    /// The kind of the error.
    pub error: Option<String>,
    /// What was done.
    pub done: Done,
}

/// What a span tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The call of a tool.
    Tool(Tool),
    /// Something was retrieved for a model.
    Retrieval(Retrieval),
}

impl Default for Done {
    fn default() -> Self {
        Self::Tool(Tool::default())
    }
}

/// The call of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tool {
    /// Name of the tool.
    pub name: String,
    /// Id of the call, where the sender gives one.
    pub call: Option<String>,
    /// What the tool was told, in short.
    pub input: Option<String>,
}

/// What was retrieved for a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retrieval {
    /// Where from: the id of the source.
    pub source: Option<String>,
    /// What, where the sender tells it and it can be read.
    pub documents: Option<Documents>,
}

impl Span {
    /// What a span says, where it tells of something that counts.
    pub(super) fn of(raw: Raw) -> Result<Option<Self>, Unfit> {
        let Raw { attributes, .. } = raw;
        let done = match attributes.operation.as_deref() {
            Some("execute_tool") => {
                let of_span = raw.name.strip_prefix(SPAN_NAME).map(|name| beginning(name, NAME_CHARS));
                let name = attributes.tool.or(of_span).filter(|name| !name.is_empty());
                Done::Tool(Tool {
                    name: name.ok_or(Unfit::NoName)?,
                    call: attributes.call,
                    input: attributes.arguments,
                })
            }
            Some("retrieval") => {
                Done::Retrieval(Retrieval { source: attributes.source, documents: attributes.documents })
            }
            _ => return Ok(None),
        };
        let id = |bytes: &[u8], length: usize| {
            (bytes.len() == length && bytes.iter().any(|byte| *byte != 0)).then(|| hexadecimal(bytes))
        };
        let message = Some(beginning(&raw.message, OUTPUT_CHARS)).filter(|text| !text.is_empty());
        Ok(Some(Self {
            trace: id(&raw.trace, 16).ok_or(Unfit::Id)?,
            id: id(&raw.id, 8).ok_or(Unfit::Id)?,
            parent: id(&raw.parent, 8),
            start_ns: raw.start_ns,
            end_ns: raw.end_ns,
            conversation: attributes.conversation,
            output: attributes.result.or(message),
            failed: raw.code == 2 || attributes.error.is_some(),
            error: attributes.error,
            done,
        }))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
