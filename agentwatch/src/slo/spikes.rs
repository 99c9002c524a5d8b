//! Spikes: within a minute more of what an agent does is refused, or is outside of what was declared, than is usual for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::event::{Alignment, Event, Kind, Verdict};

const NS_PER_MINUTE: u64 = 60_000_000_000;
/// Minutes before this one that tell what is usual.
const USUAL_MINUTES: usize = 60;
/// What is no spike, however unusual it is.
const LEAST: u64 = 10;
/// How many times what is usual a spike is.
const TIMES: u64 = 4;
/// Agents that are followed: more than a policy can name.
const AGENTS_MAX: usize = 4_096;

/// What is followed, minute by minute.
#[derive(Debug, Default)]
struct Measure {
    now: u64,
    past: VecDeque<u64>,
    told: bool,
}

impl Measure {
    fn next_minutes(&mut self, minutes: u64) {
        for _ in 0..minutes.min(USUAL_MINUTES as u64 + 1) {
            if self.past.len() == USUAL_MINUTES {
                self.past.pop_front();
            }
            self.past.push_back(std::mem::take(&mut self.now));
            self.told = false;
        }
    }

    /// Counts; gives how many in an hour were usual where this is a spike that was not told yet.
    fn add(&mut self, count: u64) -> Option<u64> {
        self.now += count;
        let in_an_hour: u64 = self.past.iter().sum();
        let is_spike = self.now >= LEAST && self.now * USUAL_MINUTES as u64 > in_an_hour * TIMES;
        let is_new = is_spike && !self.told;
        self.told |= is_spike;
        is_new.then_some(in_an_hour)
    }
}

#[derive(Debug, Default)]
struct OfAgent {
    minute: u64,
    denied: Measure,
    outside: Measure,
}

/// What is usual for each agent.
#[derive(Debug, Default)]
pub struct Spikes {
    by_agent: HashMap<Arc<str>, OfAgent>,
}

impl Spikes {
    /// Counts an event of this moment, in nanoseconds since 1970. Gives an event where that makes a spike: the first of a
    /// minute.
    pub fn count(&mut self, event: &Event, now_ns: u64) -> Option<Event> {
        let is_denied = matches!(event.verdict, Verdict::Denied | Verdict::Killed);
        let is_outside = event.intent.as_ref().is_some_and(|one| one.alignment == Some(Alignment::Outside));
        if !is_denied && !is_outside || event.agent.is_empty() {
            return None;
        }
        if self.by_agent.len() >= AGENTS_MAX && !self.by_agent.contains_key(&event.agent) {
            self.by_agent.clear();
        }
        let agent = self.by_agent.entry(Arc::clone(&event.agent)).or_default();
        let minute = now_ns / NS_PER_MINUTE;
        // A clock that was set back begins no minute.
        let passed = minute.saturating_sub(agent.minute);
        agent.minute = agent.minute.max(minute);
        agent.denied.next_minutes(passed);
        agent.outside.next_minutes(passed);
        let denied = is_denied.then(|| agent.denied.add(event.count)).flatten();
        let outside = is_outside.then(|| agent.outside.add(event.count)).flatten();
        let (what, measure, in_an_hour) = match (denied, outside) {
            (Some(usual), _) => ("denied", &agent.denied, usual),
            (None, Some(usual)) => ("outside of what was declared", &agent.outside, usual),
            (None, None) => return None,
        };
        Some(spike(event, what, measure.now, in_an_hour))
    }
}

fn spike(event: &Event, what: &str, now: u64, in_an_hour: u64) -> Event {
    let reason = format!(
        "{now} operations of the agent were {what} within a minute, and {in_an_hour} in the hour before: see `agentwatch \
         slo`, and stop it if need be"
    );
    Event {
        kind: Kind::SloSpike,
        seq: 0,
        reason: Some(reason),
        verdict: Verdict::Allowed,
        session: Arc::default(),
        parent_session: None,
        attribution: None,
        op: None,
        process: None,
        file: None,
        network: None,
        guard: None,
        child: None,
        exit: None,
        loss: None,
        command: None,
        rule: None,
        policy: None,
        intent: None,
        tool_call: None,
        prompt_id: None,
        errno: None,
        count: 1,
        time_last: None,
        ..event.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing;

    const T0: u64 = 30_000_000 * NS_PER_MINUTE;

    fn denied(agent: &str, count: u64) -> Event {
        Event { verdict: Verdict::Denied, agent: agent.into(), count, ..testing::event(0, "coding-1") }
    }

    fn at(spikes: &mut Spikes, event: &Event, minute: u64) -> bool {
        spikes.count(event, T0 + minute * NS_PER_MINUTE).is_some()
    }

    #[test]
    fn the_first_that_is_unusual_is_told_once_a_minute() {
        let mut spikes = Spikes::default();
        for _ in 0..LEAST - 1 {
            assert!(!at(&mut spikes, &denied("a", 1), 0));
        }
        assert!(!at(&mut spikes, &denied("b", 1), 0), "another agent");
        assert!(!at(&mut spikes, &testing::event(0, "coding-1"), 0), "an operation like any other");
        let spike = spikes.count(&denied("a", 1), T0).unwrap();
        assert_eq!((spike.kind, &*spike.agent, &*spike.session), (Kind::SloSpike, "a", ""));
        assert!(
            spike
                .reason
                .unwrap()
                .starts_with("10 operations of the agent were denied within a minute, and 0 in")
        );
        assert!(!at(&mut spikes, &denied("a", 100), 0), "told already");
        assert!(at(&mut spikes, &denied("a", 100), 1), "the next minute");
    }

    #[test]
    fn what_happens_all_the_time_is_usual() {
        let mut spikes = Spikes::default();
        for minute in 0..60 {
            spikes.count(&denied("a", 12), T0 + minute * NS_PER_MINUTE);
        }
        assert!(!at(&mut spikes, &denied("a", 48), 60));
        assert!(at(&mut spikes, &denied("a", 1), 60), "more than four times of it");
        assert!(at(&mut spikes, &denied("a", 10), 60 + 61), "after an hour of nothing");
        assert!(!at(&mut spikes, &denied("a", 9), 60 + 122));
        assert!(!at(&mut spikes, &denied("a", 0), 5), "a clock set back");
    }

    #[test]
    fn what_is_outside_is_followed_by_itself() {
        let mut spikes = Spikes::default();
        let outside = crate::event::IntentRef::of(&"int-1".into(), Alignment::Outside);
        let event = Event { verdict: Verdict::Allowed, intent: Some(outside), ..denied("a", 10) };
        assert!(!at(&mut spikes, &denied("a", 9), 0));
        let spike = spikes.count(&event, T0).unwrap();
        assert!(spike.reason.unwrap().contains("outside of what was declared"));
    }
}
