//! The policy in force, and another one: the JSON of `GET /v1/policy` and `POST /v1/policy/apply`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::selftest::SelfTestView;

/// Answer of `GET /v1/policy`: what is in force, and what of it is carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// Counts up on this host with every policy that comes into force: events carry it.
    pub version: u32,
    /// SHA-256 of its files, as events carry it.
    pub hash: Arc<str>,
    /// When it came into force: RFC 3339 in UTC.
    pub since: String,
    /// Where it is from.
    pub origin: PolicyOrigin,
    /// What `agentwatch run --policy` names; absent without.
    pub path: Option<String>,
    /// The files that it was read from.
    pub files: Vec<String>,
    /// What `agentwatch run --mode` holds all agents to; absent without.
    pub held_to: Option<String>,
    /// Why a later policy was refused, so that this one stays in force; absent where none was.
    pub refused: Option<String>,
    /// What the last self-test proved of it.
    pub self_test: SelfTestView,
    /// Its agents.
    pub agents: Vec<PolicyAgentView>,
    /// Its rules, in the order of the files.
    pub rules: Vec<PolicyRuleView>,
}

/// Where a policy is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyOrigin {
    /// There is none: agents are only observed.
    None,
    /// The files that `agentwatch run --policy` names.
    Files,
    /// It came by `agentwatch policy apply`.
    Applied,
}

/// An agent of the policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyAgentView {
    /// Its name.
    pub name: String,
    /// Its owner, where the policy names one.
    pub owner: Option<String>,
    /// Its mode in force.
    pub mode: String,
    /// Its guards.
    pub guards: Vec<PolicyGuardView>,
}

/// A guard of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyGuardView {
    /// Its name.
    pub guard: String,
    /// What comes of it; `off` where the policy says so.
    pub status: Standing,
    /// Why it is not `enforced`, in one sentence.
    pub reason: Option<String>,
}

/// A rule of the policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRuleView {
    /// Its name.
    pub name: String,
    /// `allow`, `log`, `ask`, `deny` or `kill`.
    pub says: String,
    /// The file that it stands in.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// For whom it is; absent where it is for all agents.
    pub agents: Option<Vec<String>>,
    /// The window outside of which it does not count; absent where it always counts.
    pub during: Option<String>,
    /// What comes of it.
    pub status: Standing,
    /// What is to be known of that: a sentence each.
    pub reasons: Vec<String>,
}

/// What comes of a rule or a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// The kernel carries it out, for all agents that it is for.
    Enforced,
    /// The kernel carries it out for some of its agents, or not for all that it covers: the reasons say what is missing.
    Partly,
    /// The kernel decides by it and refuses nothing: the mode `recommend`.
    WouldDeny,
    /// Nothing is decided: the mode `observe`.
    Observed,
    /// It should be carried out and is not: the reasons say why.
    NotEnforced,
    /// The policy switches it off.
    Off,
}

impl Standing {
    /// The word used in the JSON and in tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Partly => "partly",
            Self::WouldDeny => "would-deny",
            Self::Observed => "observed",
            Self::NotEnforced => "not-enforced",
            Self::Off => "off",
        }
    }
}

/// Body of `POST /v1/policy/apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyBody {
    /// The files of the policy, in their order.
    pub files: Vec<PolicyFile>,
}

/// One file of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Its name, for messages.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Answer of `POST /v1/policy/apply`: the policy is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedView {
    /// Its version, as events carry it.
    pub version: u32,
    /// Its hash, as events carry it.
    pub hash: Arc<str>,
    /// When it came into force: RFC 3339 in UTC.
    pub since: String,
    /// Where it is kept for the next start of the daemon.
    pub kept: String,
    /// What `agentwatch run --policy` names, whose change or SIGHUP ends its time; absent without.
    pub path: Option<String>,
}
