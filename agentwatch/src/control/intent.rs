//! Intents: the JSON of `POST /v1/declare`, `POST /v1/intents/declare`, `GET /v1/intents` and what is below it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Op, Verdict};

/// Body of `POST /v1/declare` and of `POST /v1/intents/declare`: what a session is about to do. Who says so, the kernel
/// tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntentBody {
    /// Id of the session, or a beginning of it that no other has; without, the caller's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The prompt that led to it, or an id of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What is to be reached, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The tool that will do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<IntentTool>,
    /// Identifiers of what was retrieved for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<String>,
    /// What will be done: patterns by operation, as in a rule. Without, what the plan says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scope: BTreeMap<Op, Vec<String>>,
    /// The steps that will be done, `OP TARGET` each. All are judged first, and where the policy refuses one nothing is
    /// declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<String>,
    /// When it is over: a duration such as `10m` or `1h30m`, or a time (RFC 3339). An hour without, at most a week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What it does not cover is refused by the kernel. For operators alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binding: bool,
}

/// A tool, as a harness names it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntentTool {
    /// Id of the call.
    #[serde(default)]
    pub id: Option<String>,
    /// Name of the tool.
    #[serde(default)]
    pub name: Option<String>,
    /// What it was given.
    #[serde(default)]
    pub input: Option<serde_json::Value>,
}

impl IntentTool {
    /// About how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = [&self.id, &self.name].into_iter().flatten().map(String::len).sum::<usize>();
        texts + self.input.as_ref().map_or(0, |input| input.to_string().len())
    }
}

/// Who declared an intent, as the kernel says: who comes later cannot close what one before has declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeclaredBy {
    /// Root, or the daemon's own user, from outside all sessions.
    Operator,
    /// The session's first process: what the agent runs in.
    Harness,
    /// Another process of the session, so perhaps what a tool of the agent started.
    Agent,
}

impl DeclaredBy {
    /// The word used in the JSON and in tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Harness => "harness",
            Self::Agent => "agent",
        }
    }
}

/// Whether an intent counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntentState {
    /// Events are held against it.
    InForce,
    /// Its time is over.
    Expired,
    /// It was closed before.
    Closed,
}

impl IntentState {
    /// The word used in the JSON and in tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::InForce => "in-force",
            Self::Expired => "expired",
            Self::Closed => "closed",
        }
    }
}

/// A step of a plan, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStepView {
    /// The step, as it was given.
    pub step: String,
    /// What the policy makes of it in the agent's mode.
    pub verdict: Verdict,
    /// Why, in one sentence.
    pub reason: String,
}

/// Body of `POST /v1/intents/{intent}/check`: whether what was done is what it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntentCheckBody {
    /// It is.
    pub passed: bool,
    /// What was looked at, or what is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What was found when what was done was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentCheckView {
    /// It is what it should be.
    pub passed: bool,
    /// What was looked at, or what is wrong, as it was given.
    pub note: Option<String>,
    /// Who says so.
    pub checked_by: DeclaredBy,
    /// User id of who says so, in the initial namespace.
    pub uid: u32,
    /// When: RFC 3339 in UTC.
    pub time: String,
}

/// Answer of `GET /v1/intents`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IntentsView {
    /// In the order in which they were declared.
    pub intents: Vec<IntentView>,
}

/// An intent: what was declared, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntentView {
    /// Its id, such as `int-7f3k2q`.
    pub id: Arc<str>,
    /// Id of the session that it is about.
    pub session: Arc<str>,
    /// Whether it counts now.
    pub state: IntentState,
    /// Who declared it.
    pub declared_by: DeclaredBy,
    /// Whether the kernel refuses what it does not cover, as long as it is in force.
    pub binding: bool,
    /// When: RFC 3339 in UTC.
    pub declared: String,
    /// When it is over.
    pub expires: String,
    /// When it was closed; absent where it was not.
    pub closed: Option<String>,
    /// User id of who declared it, in the initial namespace.
    pub uid: u32,
    /// Process id of who declared it, where it was in sight.
    pub pid: Option<u32>,
    /// The prompt that led to it, as it was given.
    pub prompt: Option<String>,
    /// What is to be reached, as it was given.
    pub task: Option<String>,
    /// The tool, as it was given.
    pub tool: Option<IntentTool>,
    /// What was retrieved for it, as it was given.
    pub context: Vec<String>,
    /// What it covers, its plan included; resources as what they stand for.
    pub scope: BTreeMap<Op, Vec<String>>,
    /// Its plan, judged by the policy that was in force when it was declared.
    pub plan: Vec<PlanStepView>,
    /// Events that it covered.
    pub aligned: u64,
    /// Events that nothing in force covered while it was the latest in force.
    pub outside: u64,
    /// What was found when what was done was looked at, in that order; the latest 16.
    pub checks: Vec<IntentCheckView>,
}
