//! Why a session is one: the use of what another one left behind.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Encoding, ObservedText, PolicyVersion, ToolCallRef, UsedBy};

/// The use of a file that a session left behind, with who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The file, where it was used: as `path` of a file.
    pub path: ObservedText,
    /// `percent` where `path` is not UTF-8 and is percent-encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_encoding: Option<Encoding>,
    /// How it was used.
    pub by: UsedBy,
    /// The session that wrote it last.
    pub session: Arc<str>,
    /// The agent of that session.
    pub agent: Arc<str>,
    /// The agent's owner, where the policy named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Arc<str>>,
    /// The tool call that wrote it, where a harness told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call: Option<ToolCallRef>,
    /// The prompt that led to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_id: Option<Arc<str>>,
    /// The intent that the write was held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Arc<str>>,
    /// The policy that was in force when it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyVersion>,
    /// The rule that let it be written, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// When it was opened for writing. Absent where the event of that is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Number of the event of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// What had made that session, where it was a caused one itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Arc<Cause>>,
}
