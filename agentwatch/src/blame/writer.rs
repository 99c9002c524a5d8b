//! Who wrote a file last.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    event::{Cause, Event, PolicyVersion, ToolCallRef},
    written::Write,
};

/// A write, by whom and by what right.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Writer {
    /// When.
    pub time: String,
    /// Number of the event.
    pub seq: u64,
    /// The session.
    pub session: Arc<str>,
    /// Its agent.
    pub agent: Arc<str>,
    /// The agent's owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Arc<str>>,
    /// The tool call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call: Option<ToolCallRef>,
    /// The prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_id: Option<Arc<str>>,
    /// The intent that it was held against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intent: Option<Arc<str>>,
    /// The policy that was in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyVersion>,
    /// The rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// What had made the session, where it was a caused one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Arc<Cause>>,
    /// Inode number of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
}

impl Writer {
    /// As an event has it.
    #[must_use]
    pub fn of_event(event: &Event) -> Self {
        Self {
            time: event.time.clone(),
            seq: event.seq,
            session: Arc::clone(&event.session),
            agent: Arc::clone(&event.agent),
            owner: event.owner.clone(),
            tool_call: event.tool_call.clone(),
            prompt_id: event.prompt_id.clone(),
            intent: event.intent.as_ref().and_then(|intent| intent.id.clone()),
            policy: event.policy.clone(),
            rule: event.rule.clone(),
            cause: None,
            inode: event.file.as_ref().and_then(|file| file.inode),
        }
    }

    /// As the use of the file tells it; without time and number where the event of the write is missing.
    #[must_use]
    pub fn of_cause(cause: &Cause) -> Self {
        Self {
            time: cause.time.clone().unwrap_or_default(),
            seq: cause.seq.unwrap_or_default(),
            session: Arc::clone(&cause.session),
            agent: Arc::clone(&cause.agent),
            owner: cause.owner.clone(),
            tool_call: cause.tool_call.clone(),
            prompt_id: cause.prompt_id.clone(),
            intent: cause.intent.clone(),
            policy: cause.policy.clone(),
            rule: cause.rule.clone(),
            cause: cause.cause.clone(),
            inode: None,
        }
    }

    /// As it is kept of the file.
    pub(super) fn of_kept(write: &Write) -> Self {
        Self {
            time: write.time.clone(),
            seq: write.seq,
            session: Arc::clone(&write.session),
            agent: Arc::clone(&write.agent),
            owner: write.owner.clone(),
            tool_call: write.tool_call.clone(),
            prompt_id: write.prompt_id.clone(),
            intent: write.intent.clone(),
            policy: write.policy.clone(),
            rule: write.rule.clone(),
            cause: write.cause.clone(),
            inode: Some(write.inode),
        }
    }
}
