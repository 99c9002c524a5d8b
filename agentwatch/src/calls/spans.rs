//! Calls that are told of when they are over (spans): what a session did in their time, without what is known to be of other
//! calls.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::{CallRef, Calls, Tally, short};
use crate::{
    control::state::ProcessId,
    event::{CallBy, Event},
    otlp::{Span, Tool},
};

/// Nanoseconds that count as one moment.
const MOMENT_NS: u64 = 1_000_000;
/// Moments of one session that are kept, 40 bytes each: a session that is busy all the time has those of four seconds, one that
/// waits for a model those of an hour.
const MOMENTS_MAX: usize = 4_096;
/// Moments of all sessions.
const ALL_MOMENTS_MAX: usize = 262_144;
/// Spans of one session by which one that comes again is known.
const KNOWN_MAX: usize = 4_096;

/// What was done in a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    at_ns: u64,
    operations: u64,
    writes: u64,
    denied: u64,
}

/// What one session did when, the latest last.
#[derive(Debug, Default)]
struct Times {
    moments: VecDeque<Moment>,
    /// Since when all are there.
    whole_since_ns: u64,
    /// Trace and span of those that were told.
    known: HashSet<(Box<str>, Box<str>)>,
    /// The same in their order.
    order: VecDeque<(Box<str>, Box<str>)>,
}

/// What sessions did when.
#[derive(Debug, Default)]
pub(super) struct AllTimes {
    /// Since when this is kept, where it is.
    since_ns: Option<u64>,
    by_session: HashMap<u64, Times>,
    kept: usize,
}

/// What is made of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spanned {
    /// A hook or a relay has told of the same call.
    Known(Arc<CallRef>),
    /// What was done in its time, where that is still known.
    New(Option<Tally>),
}

impl CallRef {
    /// The call that a span tells of. Without an id of its own it has the span's.
    #[must_use]
    pub fn of_span(span: &Span, tool: &Tool, sender: ProcessId) -> Self {
        let id = tool.call.as_deref().map_or_else(|| short(&format!("span-{}", span.id)), short);
        Self { id, name: short(&tool.name), parent: None, prompt: None, harness: sender, by: CallBy::Time }
    }
}

impl AllTimes {
    fn of(&mut self, session: u64) -> Option<&mut Times> {
        let whole_since_ns = self.since_ns?;
        let new = || Times { whole_since_ns, ..Times::default() };
        Some(self.by_session.entry(session).or_insert_with(new))
    }

    /// Notes an operation.
    pub(super) fn note(&mut self, session: u64, event: &Event, times: u64, at_ns: u64) {
        if event.tool_call.is_some() {
            return;
        }
        let mut seen = Tally::default();
        seen.add_more(event, times);
        let all_kept = self.kept;
        let Some(of) = self.of(session).filter(|_| seen.operations + seen.denied > 0) else { return };
        let is_same = |last: &&mut Moment| last.at_ns / MOMENT_NS == at_ns / MOMENT_NS;
        if let Some(last) = of.moments.back_mut().filter(is_same) {
            last.add(&seen);
            return;
        }
        let mut dropped = 0;
        if of.moments.len() >= MOMENTS_MAX || all_kept >= ALL_MOMENTS_MAX {
            // One whose turn it is not, since others have all the room, does not know of this one.
            let oldest = of.moments.pop_front().map(|oldest| oldest.at_ns);
            dropped = usize::from(oldest.is_some());
            of.whole_since_ns = of.whole_since_ns.max(oldest.unwrap_or(at_ns) + MOMENT_NS);
        }
        if dropped == 1 || all_kept < ALL_MOMENTS_MAX {
            let mut moment = Moment { at_ns, ..Moment::default() };
            moment.add(&seen);
            of.moments.push_back(moment);
            self.kept = all_kept + 1 - dropped;
        }
    }

    fn between(&self, session: u64, start_ns: u64, end_ns: u64) -> Option<Tally> {
        let since = self.since_ns?;
        let Some(of) = self.by_session.get(&session) else {
            return (since <= start_ns).then(Tally::default);
        };
        let mut seen = Tally::default();
        for moment in of.moments.iter().filter(|one| start_ns <= one.at_ns && one.at_ns <= end_ns) {
            seen.operations += moment.operations;
            seen.writes += moment.writes;
            seen.denied += moment.denied;
        }
        (of.whole_since_ns <= start_ns).then_some(seen)
    }

    pub(super) fn forget(&mut self, session: u64) {
        let gone = self.by_session.remove(&session).map_or(0, |of| of.moments.len());
        self.kept = self.kept.saturating_sub(gone);
    }
}

impl Moment {
    const fn add(&mut self, seen: &Tally) {
        self.operations += seen.operations;
        self.writes += seen.writes;
        self.denied += seen.denied;
    }
}

impl Times {
    /// Whether a span comes for the first time.
    fn is_new(&mut self, span: &Span) -> bool {
        let id: (Box<str>, Box<str>) = (span.trace.as_str().into(), span.id.as_str().into());
        if !self.known.insert(id.clone()) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

impl Calls {
    /// Keeps from now on what sessions do when, which spans are held against.
    pub fn keep_times(&mut self, now_ns: u64) {
        self.times.since_ns = Some(now_ns);
    }

    /// Whether a span comes for the first time.
    pub fn is_new_span(&mut self, session: u64, span: &Span) -> bool {
        self.times.of(session).is_none_or(|times| times.is_new(span))
    }

    /// Takes up the call of a tool that a span tells of: it is over.
    #[must_use]
    pub fn span(&self, session: u64, span: &Span, tool: &Tool) -> Spanned {
        let known = tool.call.as_deref().map(short).and_then(|id| self.call(session, &id));
        match known {
            Some(call) => Spanned::Known(Arc::clone(&call.whose)),
            None => Spanned::New(self.times.between(session, span.start_ns, span.end_ns)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::tool::{Begin, ToolCall},
        event::{Op, Verdict},
        log::testing,
    };

    const SESSION: u64 = 7;
    const MS: u64 = MOMENT_NS;

    fn keeping() -> Calls {
        let mut calls = Calls::default();
        calls.keep_times(100 * MS);
        calls
    }

    fn act(op: Op, verdict: Verdict) -> Event {
        Event { op: Some(op), verdict, ..testing::event(0, "coding-1") }
    }

    fn span(id: u64, start_ms: u64, end_ms: u64) -> Span {
        let id = format!("{id:016x}");
        Span { id, start_ns: start_ms * MS, end_ns: end_ms * MS, ..Span::default() }
    }

    fn take(calls: &Calls, session: u64, span: &Span) -> Spanned {
        calls.span(session, span, &Tool::default())
    }

    fn numbers(spanned: &Spanned) -> Option<(u64, u64, u64)> {
        let Spanned::New(seen) = spanned else { panic!("{spanned:?}") };
        seen.as_ref().map(|seen| (seen.operations, seen.writes, seen.denied))
    }

    #[test]
    fn what_was_done_in_a_spans_time_is_counted() {
        let mut calls = keeping();
        for (op, verdict, at_ms) in [
            (Op::Read, Verdict::Allowed, 119),
            (Op::Write, Verdict::Allowed, 120),
            (Op::Write, Verdict::Allowed, 125),
            (Op::Delete, Verdict::Denied, 130),
            (Op::Read, Verdict::Allowed, 131),
        ] {
            calls.count(SESSION, &act(op, verdict), at_ms * MS);
        }
        calls.count_more(SESSION, &act(Op::Write, Verdict::Allowed), 5, 126 * MS);
        assert_eq!(numbers(&take(&calls, SESSION, &span(1, 120, 130))), Some((8, 7, 1)));
        assert_eq!(numbers(&take(&calls, SESSION, &span(2, 140, 150))), Some((0, 0, 0)));
        assert_eq!(numbers(&take(&calls, SESSION + 1, &span(3, 120, 130))), Some((0, 0, 0)));
        assert_eq!(numbers(&take(&calls, SESSION, &span(4, 99, 130))), None, "nobody looked then");
    }

    #[test]
    fn what_is_of_a_call_is_of_no_other() {
        let mut calls = keeping();
        let tool = ToolCall { id: "one".into(), name: "Bash".into(), ..ToolCall::default() };
        let begin = Begin { tool, ..Begin::default() };
        let whose = calls.begin(SESSION, ProcessId { pid: 1, start_time: 1 }, &begin, 110 * MS);
        let mut event = act(Op::Write, Verdict::Allowed);
        event.tool_call = Some(whose.in_event());
        calls.count(SESSION, &event, 115 * MS);
        assert_eq!(numbers(&take(&calls, SESSION, &span(1, 110, 120))), Some((0, 0, 0)));
        let known = Tool { call: Some("one".into()), ..Tool::default() };
        assert_eq!(calls.span(SESSION, &span(2, 110, 120), &known), Spanned::Known(whose));
    }

    #[test]
    fn a_span_that_comes_again_is_known_as_long_as_it_is_kept() {
        let mut calls = keeping();
        assert!(calls.is_new_span(SESSION, &span(1, 120, 130)));
        assert!(!calls.is_new_span(SESSION, &span(1, 120, 130)));
        assert!(calls.is_new_span(SESSION + 1, &span(1, 120, 130)), "another session's");
        for id in 0..KNOWN_MAX as u64 {
            calls.is_new_span(SESSION, &span(id + 2, 120, 130));
        }
        assert!(calls.is_new_span(SESSION, &span(1, 120, 130)));
        let times = &calls.times.by_session[&SESSION];
        assert_eq!((times.known.len(), times.order.len()), (KNOWN_MAX, KNOWN_MAX));
    }

    #[test]
    fn what_is_kept_is_bounded_and_goes_with_the_session() {
        let mut calls = keeping();
        let event = act(Op::Write, Verdict::Allowed);
        let sessions = (ALL_MOMENTS_MAX / MOMENTS_MAX) as u64;
        for session in 0..sessions {
            for at in 0..MOMENTS_MAX as u64 + 9 {
                calls.count(session, &event, (200 + at) * MS);
            }
        }
        assert_eq!(calls.times.kept, ALL_MOMENTS_MAX);
        assert_eq!(numbers(&take(&calls, 0, &span(1, 208, 300))), None, "the first were dropped");
        assert_eq!(numbers(&take(&calls, 0, &span(2, 209, 218))), Some((10, 10, 0)));
        calls.count(sessions, &event, 300 * MS);
        assert_eq!(numbers(&take(&calls, sessions, &span(3, 300, 301))), None, "there was no room");
        assert_eq!(numbers(&take(&calls, sessions, &span(4, 301, 302))), Some((0, 0, 0)));
        for session in 0..=sessions {
            calls.forget(session);
        }
        assert_eq!((calls.times.kept, calls.times.by_session.len()), (0, 0));
    }

    #[test]
    fn without_a_receiver_nothing_is_kept() {
        let mut calls = Calls::default();
        calls.count(SESSION, &act(Op::Write, Verdict::Allowed), 120 * MS);
        assert!(calls.times.by_session.is_empty());
    }
}
