//! Which events of the log are asked for.
//!
//! Values of one filter are alternatives; different filters must all hold.

mod eval;
mod expr;
mod fields;
mod parse;
mod token;
mod when;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use expr::Expr;
pub use fields::FIELDS;
pub use token::ExprError;
pub use when::parse_when;

use crate::event::{Kind, Op, Verdict};
use crate::log::{Head, Line};

/// Sessions of one beginning that an error names.
const NAMED_SESSIONS: usize = 8;

/// What is asked for. The default asks for everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Agents' names.
    pub agents: Vec<String>,
    /// Sessions.
    pub sessions: Vec<SessionName>,
    /// Operations.
    pub ops: Vec<Op>,
    /// Verdicts.
    pub verdicts: Vec<Verdict>,
    /// Kinds, or the first parts of kinds.
    pub kinds: Vec<KindName>,
    /// Events of this time or later, as [`crate::log::format_time`] writes it.
    pub since: Option<String>,
    /// Events of this time or earlier.
    pub until: Option<String>,
    /// Events of which this is true.
    pub expr: Option<Expr>,
}

/// A session as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionName {
    /// By its id.
    Whole(String),
    /// By the beginning of its id.
    Begins(String),
}

/// A kind as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindName {
    /// One.
    Whole(Kind),
    /// All whose name has this before the dot.
    Group(&'static str),
}

/// A beginning that stands for no session, or for several.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// None.
    #[error(
        "no event in the log is from a session that begins with `{begins}`: `agentwatch agents --all` lists \
         sessions"
    )]
    None {
        /// What was asked for.
        begins: String,
    },
    /// Several.
    #[error(
        "`{begins}` begins several sessions ({}{}): write more of the one that you mean",
        sessions.join(", "),
        if *more { ", …" } else { "" }
    )]
    Several {
        /// What was asked for.
        begins: String,
        /// Some of them.
        sessions: Vec<String>,
        /// These are not all.
        more: bool,
    },
}

impl Filter {
    /// Whether an event is asked for. One that cannot be read in full is not, where an expression asks.
    #[must_use]
    pub fn matches(&self, line: &Line<'_>) -> bool {
        self.matches_head(&line.head)
            && self
                .expr
                .as_ref()
                .is_none_or(|expr| serde_json::from_str(line.text).is_ok_and(|event| expr.holds(&event)))
    }

    fn matches_head(&self, head: &Head<'_>) -> bool {
        let any_name = |names: &[String], name: &str| names.is_empty() || names.iter().any(|one| one == name);
        any_name(&self.agents, &head.agent)
            && (self.sessions.is_empty() || self.sessions.iter().any(|name| name.is(&head.session)))
            && (self.ops.is_empty() || self.ops.iter().any(|op| op.name() == head.op))
            && (self.verdicts.is_empty()
                || self.verdicts.iter().any(|verdict| verdict.name() == head.verdict))
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind.is(&head.kind)))
            && self.since.as_ref().is_none_or(|since| *head.time >= **since)
            && self.until.as_ref().is_none_or(|until| *head.time <= **until)
    }
}

impl SessionName {
    fn is(&self, session: &str) -> bool {
        match self {
            Self::Whole(id) => id == session,
            Self::Begins(begins) => session.starts_with(begins.as_str()),
        }
    }
}

impl KindName {
    /// Reads `file.open`, or `file` for all of its kinds.
    ///
    /// # Errors
    /// A sentence that names the kinds that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let group = || {
            let name = text.strip_suffix(".*").unwrap_or(text);
            Kind::ALL.iter().filter_map(|kind| kind.name().split_once('.')).find(|(group, _)| *group == name)
        };
        let whole = Kind::from_name(text).map(Self::Whole);
        whole.or_else(|| group().map(|(group, _)| Self::Group(group))).ok_or_else(|| {
            let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            format!("no event is of the kind `{text}`: kinds are {}, or their first parts", names.join(", "))
        })
    }

    fn is(self, kind: &str) -> bool {
        match self {
            Self::Whole(whole) => whole.name() == kind,
            Self::Group(group) => kind.split_once('.').is_some_and(|(first, _)| first == group),
        }
    }
}

/// Reads an operation.
///
/// # Errors
/// A sentence that names those that there are, or the kind that was meant.
pub fn parse_op(text: &str) -> Result<Op, String> {
    Op::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = Op::ALL.iter().map(|op| op.name()).collect();
        let kind = Kind::ALL
            .iter()
            .map(|kind| kind.name())
            .find(|name| *name == text || name.split_once('.').is_some_and(|(_, last)| last == text));
        let hint =
            kind.map(|kind| format!("; use `--kind {kind}` for this kind of event")).unwrap_or_default();
        format!("there is no operation `{text}`: operations are {}{hint}", names.join(", "))
    })
}

/// Reads a verdict.
///
/// # Errors
/// A sentence that names those that there are.
pub fn parse_verdict(text: &str) -> Result<Verdict, String> {
    Verdict::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = Verdict::ALL.iter().map(|verdict| verdict.name()).collect();
        format!("there is no verdict `{text}`: verdicts are {}", names.join(", "))
    })
}

/// Finds out which sessions are meant by the beginnings of their ids: show it all events, then ask.
#[derive(Debug, Default)]
pub struct SessionSearch(BTreeMap<String, BTreeSet<String>>);

impl SessionSearch {
    /// A search for the sessions of a filter that are not known by their whole id; `None` where all are.
    #[must_use]
    pub fn new(filter: &Filter) -> Option<Self> {
        let begins = filter.sessions.iter().filter_map(|name| match name {
            SessionName::Begins(begins) => Some((begins.clone(), BTreeSet::new())),
            SessionName::Whole(_) => None,
        });
        let search: BTreeMap<_, _> = begins.collect();
        (!search.is_empty()).then_some(Self(search))
    }

    /// Takes note of an event.
    pub fn see(&mut self, head: &Head<'_>) {
        for (begins, found) in &mut self.0 {
            let session = &*head.session;
            // The one that is asked for by its whole id is noted past the bound as well.
            let room = found.len() <= NAMED_SESSIONS || session == begins;
            if room && session.starts_with(begins.as_str()) && !found.contains(session) {
                found.insert(session.to_owned());
            }
        }
    }

    /// Replaces the beginnings in the filter by the sessions that they stand for.
    ///
    /// # Errors
    /// One stands for several sessions; or for none, unless `later` ones may come.
    pub fn settle(&self, filter: &mut Filter, later: bool) -> Result<(), SessionError> {
        for name in &mut filter.sessions {
            let SessionName::Begins(begins) = &*name else { continue };
            let Some(found) = self.0.get(begins) else { continue };
            match (found.first(), found.len()) {
                (Some(first), 1) => *name = SessionName::Whole(first.clone()),
                // It sorts before all that it begins.
                (Some(first), _) if first == begins => *name = SessionName::Whole(first.clone()),
                (None, _) if later => {}
                (None, _) => return Err(SessionError::None { begins: begins.clone() }),
                (Some(_), count) => {
                    let sessions = found.iter().take(NAMED_SESSIONS).cloned().collect();
                    let more = count > NAMED_SESSIONS;
                    return Err(SessionError::Several { begins: begins.clone(), sessions, more });
                }
            }
        }
        Ok(())
    }
}
