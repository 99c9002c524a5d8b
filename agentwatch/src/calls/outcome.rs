//! What came of a tool call or a prompt: what its harness reports, beside what the kernel saw.

use serde::{Deserialize, Serialize};

use super::text;
use crate::{
    control::tool::{RefusedView, Reported},
    event::{Event, Op, Outcome, Verdict},
};

/// Refusals of one call that are told to its harness: the log has all.
const REFUSED_MAX: usize = 8;
/// Characters of what a tool gave, or of what an agent said last, that are kept.
const OUTPUT_CHARS: usize = 512;

/// What the kernel saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Operations, those that were refused included.
    pub operations: u64,
    /// Of these such that write or delete and were not refused.
    pub writes: u64,
    /// Such that were refused.
    pub denied: u64,
    /// The first that were.
    pub refused: Vec<RefusedView>,
}

impl Tally {
    /// Counts an event.
    pub fn add(&mut self, event: &Event) {
        self.add_more(event, event.count);
        if is_told(event.verdict) && self.refused.len() < REFUSED_MAX {
            self.refused.push(RefusedView::of(event));
        }
    }

    /// Counts repeats of an event.
    pub fn add_more(&mut self, event: &Event, more: u64) {
        if is_told(event.verdict) {
            self.denied += more;
        } else if matches!(event.op, Some(Op::Write | Op::Delete)) {
            self.writes += more;
        }
        if event.op.is_some() {
            self.operations += more;
        }
    }

    /// Beside what was reported.
    #[must_use]
    pub fn outcome(&self, reported: Option<Reported>, output: Option<&str>) -> Outcome {
        Outcome {
            reported: reported.map(Reported::word).map(Into::into),
            output: output.map(|output| text::beginning(output, OUTPUT_CHARS)),
            operations: self.operations,
            writes: self.writes,
            denied: self.denied,
        }
    }

    /// What does not fit together, or else what was seen, in one sentence. `writes` where the tool is there to write.
    #[must_use]
    pub fn sentence(&self, reported: Option<Reported>, writes: bool) -> String {
        let said = match reported {
            Some(reported) => format!("reported {}", reported.word()),
            None => "over".to_owned(),
        };
        let were = |count: u64, what: &str| match count {
            1 => format!("1 operation was {what}"),
            count => format!("{count} operations were {what}"),
        };
        if self.denied > 0 {
            return format!("{said}, and {}", were(self.denied, "denied"));
        }
        match reported {
            Some(Reported::Success) if writes && self.writes == 0 => format!("{said}, and wrote nothing"),
            Some(Reported::Failure | Reported::Interrupted) if self.writes > 0 => {
                format!("{said}, after {}", were(self.writes, "done that write"))
            }
            _ => format!("{said}: {} operations, {} that write", self.operations, self.writes),
        }
    }
}

/// Whether an event is a refusal that a harness should know of.
#[must_use]
pub const fn is_told(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Denied | Verdict::Killed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_stands_beside_what_was_seen() {
        let tally = |operations, writes, denied| Tally { operations, writes, denied, refused: Vec::new() };
        let (good, bad) = (Some(Reported::Success), Some(Reported::Failure));
        for (tally, reported, writer, said) in [
            (tally(9, 2, 3), good, true, "reported success, and 3 operations were denied"),
            (tally(9, 2, 1), bad, false, "reported failure, and 1 operation was denied"),
            (tally(4, 0, 0), good, true, "reported success, and wrote nothing"),
            (tally(4, 0, 0), good, false, "reported success: 4 operations, 0 that write"),
            (tally(4, 2, 0), bad, false, "reported failure, after 2 operations were done that write"),
            (tally(4, 2, 0), None, false, "over: 4 operations, 2 that write"),
        ] {
            assert_eq!(tally.sentence(reported, writer), said);
        }
    }
}
