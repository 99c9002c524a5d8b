//! What a policy would have decided over the recorded past: events in, differences out.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::{
    Policy, Target,
    past::{Now, PastOperation, PastTarget, operations_of},
};
use crate::event::{Event, How, Op, Verdict, time::parse_time};
use crate::output::escape::escape_bytes;

/// Differences that are told apart. Of more only the numbers are kept.
const DIFFERENCES_MAX: usize = 100_000;
/// Decisions that are remembered; then all are made anew.
const REMEMBERED_MAX: usize = 100_000;

/// The past under another policy.
#[derive(Debug)]
pub struct Replay<'p> {
    policy: &'p Policy,
    /// Some rule counts at certain times only, so that nothing can be remembered.
    by_time: bool,
    remembered: HashMap<(String, Vec<PastOperation>), Option<Now>>,
    summary: Summary,
    differences: BTreeMap<Key, Seen>,
}

/// How much was decided otherwise, in operations, folded ones counted each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Operations that were looked at.
    pub operations: u64,
    /// What went on and would be refused.
    pub newly_denied: u64,
    /// What nobody spoke of and would be told as to be refused.
    pub newly_would_deny: u64,
    /// What was refused and would go on.
    pub newly_allowed: u64,
    /// What comes out as it did.
    pub unchanged: u64,
    /// Operations of which not all was recorded: what the kernel cannot look at whole it refuses.
    pub undecided: u64,
    /// Operations of events that another version of agentwatch wrote, or that are damaged.
    pub unreadable: u64,
    /// Operations that are missing from the log.
    pub lost: u64,
    /// Differences beyond those that are told apart.
    pub not_told: u64,
}

/// Something that comes out otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Who.
    pub agent: String,
    /// What was tried.
    pub op: Op,
    /// On what, escaped for a terminal.
    pub target: String,
    /// What came of it.
    pub then: Verdict,
    /// What would come of it.
    pub now: Verdict,
    /// The rule; `default`, `plan` or `undecided` where none decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// How often.
    pub count: u64,
    /// When for the first time.
    pub first: String,
    /// When for the last time.
    pub last: String,
}

type Key = (String, Op, String, Verdict, Verdict, Option<String>);

#[derive(Debug)]
struct Seen {
    count: u64,
    first: String,
    last: String,
}

impl<'p> Replay<'p> {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(policy: &'p Policy) -> Self {
        Self {
            policy,
            by_time: policy.rules.iter().any(|rule| rule.during.is_some()),
            remembered: HashMap::new(),
            summary: Summary::default(),
            differences: BTreeMap::new(),
        }
    }

    /// Takes an event in its turn.
    pub fn take(&mut self, event: &Event) {
        if let Some(loss) = &event.loss {
            self.summary.lost += loss.count;
        }
        // Whoever uses what a session left behind is not that agent: nobody judges it.
        if event.attribution == Some(How::Caused) {
            return;
        }
        let operations = operations_of(event);
        if operations.is_empty() {
            return;
        }
        let Some(when_ns) = parse_time(&event.time) else { return self.unreadable() };
        let Some(now) = self.decide(&event.agent, operations, when_ns) else { return };
        self.summary.operations += event.count;
        if matches!(now.operation.target, PastTarget::Partial(_)) {
            self.summary.undecided += event.count;
        }
        let (then, stage) = (event.verdict, stage(now.verdict));
        let changed = match stage.cmp(&self::stage(then)) {
            std::cmp::Ordering::Equal => &mut self.summary.unchanged,
            std::cmp::Ordering::Less => &mut self.summary.newly_allowed,
            std::cmp::Ordering::Greater if stage == Stage::Refused => &mut self.summary.newly_denied,
            std::cmp::Ordering::Greater => &mut self.summary.newly_would_deny,
        };
        *changed += event.count;
        if stage != self::stage(then) {
            self.note(event, now);
        }
    }

    /// An event that cannot be read stands here.
    pub fn unreadable(&mut self) {
        self.summary.unreadable += 1;
    }

    /// Events are missing here.
    pub fn missing(&mut self, count: u64) {
        self.summary.lost += count;
    }

    fn decide(&mut self, agent: &str, operations: Vec<PastOperation>, when_ns: u64) -> Option<Now> {
        if self.by_time {
            return self.policy.decide_past(agent, &operations, when_ns);
        }
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.clear();
        }
        let policy = self.policy;
        let remembered = self.remembered.entry((agent.to_owned(), operations));
        let decide = |(agent, operations): &(String, Vec<PastOperation>)| {
            policy.decide_past(agent, operations, when_ns)
        };
        remembered.or_insert_with_key(decide).clone()
    }

    fn note(&mut self, event: &Event, now: Now) {
        let op = now.operation.op;
        let target = shown(&now.operation.target);
        let key = (event.agent.to_string(), op, target, event.verdict, now.verdict, now.rule);
        if self.differences.len() >= DIFFERENCES_MAX && !self.differences.contains_key(&key) {
            self.summary.not_told += 1;
            return;
        }
        let seen = self.differences.entry(key).or_insert_with(|| Seen {
            count: 0,
            first: event.time.clone(),
            last: String::new(),
        });
        seen.count += event.count;
        seen.last = event.time_last.clone().unwrap_or_else(|| event.time.clone());
    }

    /// The numbers, and what comes out otherwise: what would be refused first, the most frequent first.
    #[must_use]
    pub fn end(self) -> (Summary, Vec<Difference>) {
        let difference = |((agent, op, target, then, now, rule), seen): (Key, Seen)| Difference {
            agent,
            op,
            target,
            then,
            now,
            rule,
            count: seen.count,
            first: seen.first,
            last: seen.last,
        };
        let mut differences: Vec<_> = self.differences.into_iter().map(difference).collect();
        differences.sort_by_key(|one| (std::cmp::Reverse(one.now), std::cmp::Reverse(one.count)));
        (self.summary, differences)
    }
}

/// What a verdict is for the one who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    GoesOn,
    Told,
    Refused,
}

const fn stage(verdict: Verdict) -> Stage {
    match verdict {
        Verdict::Allowed | Verdict::Logged => Stage::GoesOn,
        Verdict::WouldDeny => Stage::Told,
        Verdict::Held | Verdict::Denied | Verdict::Killed => Stage::Refused,
    }
}

fn shown(target: &PastTarget) -> String {
    match target {
        PastTarget::Whole(Target::Path(bytes) | Target::Command(bytes)) => escape_bytes(bytes),
        PastTarget::Whole(Target::Address(address)) => address.to_string(),
        PastTarget::Partial(text) => format!("{} (not recorded whole)", escape_bytes(text.as_bytes())),
    }
}
