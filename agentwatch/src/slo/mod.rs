//! What the log says of how agents keep to what was declared and to the policy: shares and rates by agent and session,
//! over spans of time.

mod spikes;

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use crate::{
    event::{Alignment, Check, How, Kind, Op, Verdict, time::format_time},
    log::Line,
};

pub use self::spikes::Spikes;

/// Whom figures are about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Whom {
    /// The agent.
    pub agent: String,
    /// The session; absent where those of an agent are counted together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// What was counted: operations, each repeat for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Programs started, files and sockets used.
    pub operations: u64,
    /// Of these, inside an intent in force.
    pub aligned: u64,
    /// Not inside one, though some are in force.
    pub outside: u64,
    /// While none is in force, of a session that has declared something before or after.
    pub undeclared: u64,
    /// Inside one that is over.
    pub expired: u64,
    /// Refused.
    pub denied: u64,
    /// What a policy would have refused.
    pub would_deny: u64,
    /// Checks after the act that found it right.
    pub checks_passed: u64,
    /// And wrong.
    pub checks_failed: u64,
    /// Operations of which nothing is known but that they are missing in the log.
    pub lost: u64,
}

impl Figures {
    /// The share of operations inside what was declared, of those of sessions that something was declared for, in percent;
    /// `None` where there are none.
    #[must_use]
    pub fn alignment(&self) -> Option<f64> {
        percent(self.aligned, self.aligned + self.outside + self.undeclared + self.expired)
    }

    /// The share of operations outside of what was declared, of the same, in percent.
    #[must_use]
    pub fn outside_rate(&self) -> Option<f64> {
        percent(self.outside, self.aligned + self.outside + self.undeclared + self.expired)
    }

    /// The share of operations that were refused, in percent.
    #[must_use]
    pub fn denied_rate(&self) -> Option<f64> {
        percent(self.denied, self.operations)
    }
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

/// One row: a span of time, whom it is about, what was counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Beginning of the span: RFC 3339 in UTC.
    pub from: String,
    /// Its end.
    pub to: String,
    /// Whom it is about.
    #[serde(flatten)]
    pub whom: Whom,
    /// What was counted.
    #[serde(flatten)]
    pub figures: Figures,
    /// See [`Figures::alignment`].
    pub alignment_percent: Option<f64>,
    /// See [`Figures::outside_rate`].
    pub outside_percent: Option<f64>,
    /// See [`Figures::denied_rate`].
    pub denied_percent: Option<f64>,
}

/// Counts the events of a time, in spans of equal length.
#[derive(Debug)]
pub struct Counter {
    since_ns: u64,
    until_ns: u64,
    span_ns: u64,
    by_session: bool,
    spans: BTreeMap<(u64, Whom), Figures>,
    /// Lines that could not be read.
    pub unreadable: u64,
}

/// Of an event what is counted.
#[derive(Deserialize)]
struct Seen<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    op: Option<Op>,
    #[serde(default)]
    attribution: Option<How>,
    #[serde(default)]
    verdict: Option<Verdict>,
    #[serde(default)]
    intent: Option<SeenIntent>,
    #[serde(default)]
    loss: Option<SeenLoss>,
    #[serde(default = "one")]
    count: u64,
}

#[derive(Deserialize)]
struct SeenIntent {
    #[serde(default)]
    alignment: Option<Alignment>,
    #[serde(default)]
    check: Option<Check>,
}

#[derive(Deserialize)]
struct SeenLoss {
    count: u64,
}

const fn one() -> u64 {
    1
}

impl Counter {
    /// For events from one time up to another, nanoseconds since 1970, in spans of so many nanoseconds: at least one, all
    /// of it at most.
    #[must_use]
    pub fn new(since_ns: u64, until_ns: u64, span_ns: u64, by_session: bool) -> Self {
        let span_ns = span_ns.clamp(1, until_ns.saturating_sub(since_ns).max(1));
        Self { since_ns, until_ns, span_ns, by_session, spans: BTreeMap::new(), unreadable: 0 }
    }

    /// Counts an event, if it is of a session and of that time.
    pub fn count(&mut self, line: &Line<'_>, time_ns: u64) {
        if line.head.session.is_empty() || !(self.since_ns..self.until_ns).contains(&time_ns) {
            return;
        }
        let Ok(seen) = serde_json::from_str::<Seen<'_>>(line.text) else {
            self.unreadable += 1;
            return;
        };
        // Whoever uses what a session left behind is not that agent.
        if seen.attribution == Some(How::Caused) {
            return;
        }
        let span = (time_ns - self.since_ns) / self.span_ns;
        let session = self.by_session.then(|| line.head.session.clone().into_owned());
        let whom = Whom { agent: line.head.agent.clone().into_owned(), session };
        self.spans.entry((span, whom)).or_default().add(&seen);
    }

    /// The figures, by span, agent and session.
    #[must_use]
    pub fn rows(self) -> Vec<Row> {
        let row = |((span, whom), figures): ((u64, Whom), Figures)| {
            let from = self.since_ns.saturating_add(span.saturating_mul(self.span_ns));
            let to = from.saturating_add(self.span_ns).min(self.until_ns);
            Row {
                from: format_time(from),
                to: format_time(to),
                whom,
                alignment_percent: figures.alignment(),
                outside_percent: figures.outside_rate(),
                denied_percent: figures.denied_rate(),
                figures,
            }
        };
        self.spans.into_iter().map(row).collect()
    }
}

impl Figures {
    fn add(&mut self, seen: &Seen<'_>) {
        if seen.kind == Kind::Loss.name() {
            self.lost += seen.loss.as_ref().map_or(0, |loss| loss.count);
            return;
        }
        let (alignment, check) =
            seen.intent.as_ref().map_or((None, None), |intent| (intent.alignment, intent.check));
        match check {
            Some(Check::Passed) => self.checks_passed += 1,
            Some(Check::Failed) => self.checks_failed += 1,
            None => {}
        }
        if matches!(seen.verdict, Some(Verdict::Denied | Verdict::Killed)) {
            self.denied += seen.count;
        }
        if seen.verdict == Some(Verdict::WouldDeny) {
            self.would_deny += seen.count;
        }
        if seen.op.is_none() && seen.verdict.is_none_or(|verdict| verdict == Verdict::Allowed) {
            return;
        }
        self.operations += seen.count;
        match alignment {
            Some(Alignment::Aligned) => self.aligned += seen.count,
            Some(Alignment::Outside) => self.outside += seen.count,
            Some(Alignment::Undeclared) => self.undeclared += seen.count,
            Some(Alignment::Expired) => self.expired += seen.count,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::event::time::parse_time;

    const S: u64 = 1_000_000_000;

    fn count(counter: &mut Counter, second: u64, session: &str, rest: &Value) {
        let mut event = json!({
            "time": format_time(second * S), "seq": second, "kind": "file.open", "op": "write", "agent": "coding",
            "session": session, "verdict": "allowed",
        });
        event.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        event.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let text = event.to_string();
        let line = Line::parse(text.as_bytes()).unwrap();
        counter.count(&line, parse_time(&line.head.time).unwrap());
    }

    fn intent(alignment: &str) -> Value {
        json!({"intent": {"id": "int-1", "alignment": alignment}})
    }

    #[test]
    fn shares_are_of_what_was_declared_for_and_rates_of_all() {
        let mut counter = Counter::new(100 * S, 200 * S, 1_000 * S, false);
        count(&mut counter, 100, "a", &intent("aligned"));
        count(&mut counter, 101, "a", &json!({"count": 5, "intent": {"alignment": "aligned"}}));
        count(&mut counter, 102, "b", &intent("outside"));
        count(&mut counter, 103, "b", &intent("expired"));
        count(&mut counter, 104, "c", &json!({"verdict": "denied"}));
        count(&mut counter, 105, "c", &json!({"verdict": "would-deny", "count": 3}));
        count(&mut counter, 106, "c", &json!({"kind": "guard.ptrace", "op": null, "verdict": "denied"}));
        count(&mut counter, 107, "c", &json!({"kind": "process.fork", "op": null}));
        count(&mut counter, 108, "c", &json!({"kind": "loss", "op": null, "loss": {"count": 7}}));
        for check in ["passed", "failed", "failed"] {
            let about =
                json!({"kind": "intent.checked", "op": null, "intent": {"id": "int-1", "check": check}});
            count(&mut counter, 109, "a", &about);
        }
        // Before, after, and of no session.
        count(&mut counter, 99, "a", &intent("outside"));
        count(&mut counter, 200, "a", &intent("outside"));
        count(&mut counter, 150, "", &intent("outside"));
        count(&mut counter, 151, "a", &json!({"count": "many"}));
        assert_eq!(counter.unreadable, 1);
        let [row] = counter.rows().try_into().unwrap();
        let wanted = Figures {
            operations: 13,
            aligned: 6,
            outside: 1,
            undeclared: 0,
            expired: 1,
            denied: 2,
            would_deny: 3,
            checks_passed: 1,
            checks_failed: 2,
            lost: 7,
        };
        assert_eq!((row.figures, row.whom.session), (wanted, None));
        assert_eq!((row.alignment_percent, row.outside_percent), (Some(75.0), Some(12.5)));
        assert!(row.denied_percent.is_some_and(|percent| (percent - 200.0 / 13.0).abs() < 1e-9));
    }

    #[test]
    fn spans_and_sessions_are_counted_apart() {
        let mut counter = Counter::new(100 * S, 190 * S, 40 * S, true);
        for (second, session) in [(100, "a"), (139, "a"), (140, "a"), (141, "b"), (189, "b")] {
            count(&mut counter, second, session, &json!({}));
        }
        let rows = counter.rows();
        let found: Vec<_> = rows
            .iter()
            .map(|row| {
                let seconds = |time: &str| parse_time(time).unwrap() / S;
                let session = row.whom.session.as_deref().unwrap();
                (seconds(&row.from), seconds(&row.to), session, row.figures.operations)
            })
            .collect();
        assert_eq!(found, [(100, 140, "a", 2), (140, 180, "a", 1), (140, 180, "b", 1), (180, 190, "b", 1)]);
        assert_eq!(rows[0].alignment_percent, None, "nothing was declared");
        assert!(Counter::new(5, 5, 0, false).rows().is_empty());
    }
}
