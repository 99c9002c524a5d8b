//! What was said of what is done: intents, tool calls, spans, and what came of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Alignment, CallBy, Check};

/// What an event is beside what was declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentRef {
    /// The intent that covers it, or would have, or does not though it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Arc<str>>,
    /// Which of these. Absent in events about the intent itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<Alignment>,
    /// In `intent.checked`: what was found when what was done was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
}

impl IntentRef {
    /// Of this intent.
    #[must_use]
    pub fn of(id: &Arc<str>, alignment: Alignment) -> Self {
        Self { id: Some(Arc::clone(id)), alignment: Some(alignment), check: None }
    }
}

/// A tool call, as a harness names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallRef {
    /// Its id.
    pub id: Arc<str>,
    /// Name of the tool.
    pub name: Arc<str>,
    /// The call of the agent above, where a sub-agent makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Arc<str>>,
    /// How it is known that it belongs to this call. Absent in events about the call itself, but for `tool.reported`: there it
    /// says how what came of it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<CallBy>,
    /// What the tool is told, as JSON, or the beginning of that (`tool.started`, `tool.reported`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
}

/// What came of a tool call or a prompt: what its harness reports, beside what the kernel saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What the harness makes of it: `success`, `failure`, `interrupted`, `done`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<Arc<str>>,
    /// What it gave, or the beginning of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Operations that belong to it, those that were refused included.
    pub operations: u64,
    /// Of these such that write or delete, and were not refused.
    pub writes: u64,
    /// Of these such that were refused.
    pub denied: u64,
}

/// A span of OpenTelemetry, as its sender tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanRef {
    /// Id of its trace: 32 hexadecimal digits.
    pub trace_id: String,
    /// Its id: 16 hexadecimal digits.
    pub id: String,
    /// Id of the span above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// When it began: RFC 3339 in UTC with nanoseconds.
    pub start: String,
    /// When it ended.
    pub end: String,
    /// Id of the conversation that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// The kind of its error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What was retrieved for a model, as its agent tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Id of the source that it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Ids of the documents, the first 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<String>,
    /// How many documents there were. 0 where it is not told.
    pub count: u64,
}
