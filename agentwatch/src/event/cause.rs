//! Why a session is one: the use of what another one left behind.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Encoding, ObservedText, PolicyVersion, ToolCallRef, UsedBy};

/// The use of a file that a session left behind, with who wrote it; or what a delegate did, with who asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The file, where it was used: as `path` of a file. Of a delegate that was asked, its program; of a job the file that
    /// tells of it, where that is known, and else the program.
    pub path: ObservedText,
    /// `percent` where `path` is not UTF-8 and is percent-encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_encoding: Option<Encoding>,
    /// How it was used.
    pub by: UsedBy,
    /// A delegate that was asked heard from others as well, a short time before: it may be they who asked for this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub others: bool,
    /// The session that wrote it last, or asked.
    pub session: Arc<str>,
    /// The agent of that session.
    pub agent: Arc<str>,
    /// The agent's owner, where the policy named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Arc<str>>,
    /// The tool call that wrote it or asked, where a harness told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call: Option<ToolCallRef>,
    /// The prompt that led to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_id: Option<Arc<str>>,
    /// The intent that this was held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Arc<str>>,
    /// The policy that was in force then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyVersion>,
    /// The rule that let it, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// When it was opened for writing, or when who asked had connected last. Absent where the event of that is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Number of the event of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// What had made that session, where it was a caused one itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Arc<Cause>>,
}
