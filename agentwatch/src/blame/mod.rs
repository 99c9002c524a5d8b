//! Who caused something: found in the log, and in what is kept of files that sessions wrote.
//!
//! Each question goes through the log once from its oldest event on, and a second time where what it found leads further
//! back. Lines that cannot hold an answer are passed over by a look at their text.

mod files;
mod process;
mod socket;
#[cfg(test)]
mod tests;
mod writer;

use std::{collections::VecDeque, path::Path};

use serde::Serialize;

use crate::{
    event::{Event, ObservedText},
    log::{Item, LogError, Reader, Start},
};

pub use files::{FileBlame, of_file};
pub use process::{ProcessBlame, Step, of_process};
pub use socket::{Address, SocketBlame, of_socket};
pub use writer::Writer;

/// What of the log an answer rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LookedThrough {
    /// Time of the oldest event.
    pub since: Option<String>,
    /// Time of the youngest event.
    pub until: Option<String>,
    /// How many.
    pub events: u64,
    /// Events that are missing, and places that cannot be read.
    pub missing: u64,
}

impl LookedThrough {
    /// As the end of a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let missing =
            if self.missing > 0 { format!("; {} are missing there", self.missing) } else { String::new() };
        match (&self.since, &self.until) {
            (Some(since), Some(until)) => {
                format!("looked through {} events of the log, from {since} to {until}{missing}", self.events)
            }
            _ => format!("the log has no event{missing}"),
        }
    }
}

/// The last of many, in their order, and how many there were.
#[derive(Clone, Debug)]
struct Latest {
    kept: VecDeque<Event>,
    most: usize,
    count: u64,
}

impl Latest {
    const fn new(most: usize) -> Self {
        Self { kept: VecDeque::new(), most, count: 0 }
    }

    fn push(&mut self, event: Event) {
        self.count += 1;
        if self.most == 0 {
            return;
        }
        if self.kept.len() == self.most {
            self.kept.pop_front();
        }
        self.kept.push_back(event);
    }

    /// The youngest first, and how many there are beside them.
    fn newest_first(self) -> (Vec<Event>, u64) {
        let more = self.count - self.kept.len() as u64;
        (self.kept.into_iter().rev().collect(), more)
    }
}

/// Goes through the log, and gives each event whose line may hold what is looked for to `take`.
fn look_through(
    state: &Path,
    may_hold: impl Fn(&str) -> bool,
    mut take: impl FnMut(Event),
) -> Result<LookedThrough, LogError> {
    let mut reader = Reader::open(state, Start::Oldest)?;
    let mut looked = LookedThrough::default();
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Line(line) => {
                looked.events += 1;
                if looked.since.is_none() {
                    looked.since = Some(line.head.time.to_string());
                }
                looked.until = Some(line.head.time.to_string());
                // One of another version tells nothing.
                if may_hold(line.text)
                    && let Ok(event) = line.event()
                {
                    take(event);
                }
            }
            Item::Damaged { .. } => looked.missing += 1,
            Item::Missing { first, last } => looked.missing += last.saturating_sub(first) + 1,
        }
    }
    Ok(looked)
}

/// A text as a line of the log has it: with its quotation marks, so that nothing longer is meant.
fn in_json(text: &ObservedText) -> String {
    serde_json::to_string(&text.0).unwrap_or_default()
}
