//! The text of the process that acts most: what is written over and over is made once.

use serde_json::Error;

use super::json;
use crate::event::{Event, Process};

/// Events of one process in a row before its text is kept: keeping it costs as much as writing it.
const ENOUGH: u32 = 3;

/// A process of which events come, and the text that it has in them.
#[derive(Debug, Default)]
pub struct KnownProcess {
    process: Option<Process>,
    text: Vec<u8>,
    /// Who acted last, and how often in a row.
    last: (u32, u64),
    row: u32,
}

impl KnownProcess {
    /// Appends an event to `out`.
    ///
    /// # Errors
    /// As [`json::write`].
    pub fn write(&mut self, out: &mut Vec<u8>, event: &Event) -> Result<(), Error> {
        if let Some(process) = &event.process {
            if self.process.as_ref() == Some(process) {
                return json::write_with(out, event, Some(("process", &self.text)));
            }
            let who = (process.pid, process.start_time);
            self.row = if self.last == who { self.row + 1 } else { 1 };
            self.last = who;
            if self.row >= ENOUGH {
                self.row = 0;
                self.text.clear();
                json::write(&mut self.text, process)?;
                self.process = Some(process.clone());
            }
        }
        json::write(out, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::ObservedText, log::testing};

    #[test]
    fn events_are_written_alike_whoever_acts_and_however_often() {
        let mut known = KnownProcess::default();
        for (pid, cwd) in [(1, "/a"), (1, "/a"), (1, "/a"), (1, "/a"), (1, "/b"), (2, "/a"), (1, "/a")] {
            let mut event = testing::event(7, "coding-7f3k2q");
            let cwd = ObservedText(cwd.to_owned());
            event.process = Some(Process { pid, cwd, ..Process::default() });
            let mut out = Vec::new();
            known.write(&mut out, &event).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&event).unwrap());
        }
        assert_eq!(known.process.map(|process| process.pid), Some(1), "the text was kept");
    }
}
