//! Tool calls: the JSON of `POST /v1/tool`, by which a harness's hook says what its agent does.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::event::{Event, Op, Verdict};

/// Body of `POST /v1/tool`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToolBody {
    /// Somebody gave the agent a prompt.
    Prompt {
        /// Its id, where the harness gives one.
        #[serde(default)]
        prompt_id: Option<String>,
        /// The prompt, or its beginning.
        #[serde(default)]
        text: Option<String>,
    },
    /// A tool begins.
    Begin(Begin),
    /// A tool has ended.
    End(End),
    /// The agent says that it is done with what it was asked.
    Done {
        /// What it said last, or the beginning of that.
        #[serde(default)]
        text: Option<String>,
        /// The harness's id of the sub-agent that is done. Without, the agent itself.
        #[serde(default)]
        subagent: Option<String>,
        /// Id of the prompt that it is done with, where the harness gives one.
        #[serde(default)]
        prompt_id: Option<String>,
    },
    /// The harness's own session is over.
    Over {},
    /// A relay in front of an MCP server passes a call on. The server is whatever the relay has started, which is looked up
    /// and not told.
    RelayBegin {
        /// Which, and what it is told.
        tool: ToolCall,
        /// The harness's own id of it, where it gives that to servers.
        #[serde(default)]
        harness_id: Option<String>,
        /// Ids of earlier calls whose end could not be told.
        #[serde(default)]
        ended: Vec<String>,
    },
    /// The server has answered it, or it was called off.
    RelayEnd {
        /// Id of the call, as the relay told it.
        id: String,
    },
}

/// A tool begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// Which, and what it is told.
    pub tool: ToolCall,
    /// Id of the prompt that led to it.
    #[serde(default)]
    pub prompt_id: Option<String>,
    /// The harness's id of the sub-agent that calls it.
    #[serde(default)]
    pub subagent: Option<String>,
}

/// A tool has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Id of the call.
    pub id: String,
    /// What the harness makes of it.
    #[serde(default)]
    pub reported: Option<Reported>,
    /// What it gave, or the beginning of that.
    #[serde(default)]
    pub output: Option<String>,
    /// The harness's id of the sub-agent that it started.
    #[serde(default)]
    pub subagent: Option<String>,
}

/// What a harness makes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reported {
    /// It worked.
    Success,
    /// It did not.
    Failure,
    /// Somebody ended it before its time.
    Interrupted,
    /// The agent says that it is through with what it was asked.
    Done,
}

impl Reported {
    /// The word used in the JSON and in sentences.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Interrupted => "interrupted",
            Self::Done => "done",
        }
    }
}

/// A call of a tool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// Id of the call, as the harness gives it.
    pub id: String,
    /// Name of the tool.
    pub name: String,
    /// What it is told.
    #[serde(default)]
    pub input: serde_json::Value,
    /// [`digest`] of all that it is told, where `input` is a part of it: by it two who tell of one call are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The harness gives no ids: this one is made of what the call is told, and is not the call's alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub counted: bool,
}

/// Hexadecimal digits of a [`digest`].
const DIGEST_DIGITS: usize = 32;

/// What is equal for equal inputs of a tool, whatever the order of their keys.
#[must_use]
pub fn digest(input: &serde_json::Value) -> String {
    let mut input = input.clone();
    input.sort_all_objects();
    let hash = Sha256::digest(input.to_string());
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.chars().take(DIGEST_DIGITS).collect()
}

/// Answer of `POST /v1/tool`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolView {
    /// What was refused to the call that has ended, the first of it.
    pub refused: Vec<RefusedView>,
    /// How much in all.
    pub refusals: u64,
}

/// Something that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedView {
    /// What was tried, such as `delete /srv/db`.
    pub what: String,
    /// What was decided.
    pub verdict: Verdict,
    /// The rule or guard.
    pub rule: Option<String>,
    /// Why, with what the policy's author says to it.
    pub reason: Option<String>,
}

impl RefusedView {
    /// Of an event.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let target = event.command.as_ref().map(|text| text.0.clone());
        let target = target.or_else(|| event.file.as_ref().map(|file| file.path.0.clone()));
        let target = target.or_else(|| {
            let network = event.network.as_ref()?;
            let address = network.peer_address.as_ref().or(network.local_address.as_ref())?;
            let port =
                network.peer_port.or(network.local_port).map(|port| format!(":{port}")).unwrap_or_default();
            Some(format!("{}{port}", address.0))
        });
        let target = target.or_else(|| event.guard.as_ref().map(|guard| guard.act.to_string()));
        let op = event.op.map_or_else(|| event.kind.name(), Op::name);
        Self {
            what: target.map_or_else(|| op.to_owned(), |target| format!("{op} {target}")),
            verdict: event.verdict,
            rule: event.rule.as_deref().map(str::to_owned),
            reason: event.reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_is_nothing_to_a_digest() {
        let digest_of = |text: &str| digest(&serde_json::from_str(text).unwrap());
        let one = digest_of(r#"{"path": "/a", "edits": [{"old": "x", "new": "y"}]}"#);
        assert_eq!(one, digest_of(r#"{"edits": [{"new": "y", "old": "x"}], "path": "/a"}"#));
        assert_ne!(one, digest_of(r#"{"edits": [{"new": "x", "old": "y"}], "path": "/a"}"#));
    }
}
