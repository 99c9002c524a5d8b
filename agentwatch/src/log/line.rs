//! A line of the log, read only as far as needed.

use std::borrow::Cow;

use serde::Deserialize;

use crate::event::Event;

/// The fields by which lines are most often chosen, without reading the others.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Head<'a> {
    /// When the kernel saw it.
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    /// Its number on this host.
    pub seq: u64,
    /// What happened.
    #[serde(borrow, default)]
    pub kind: Cow<'a, str>,
    /// The operation, empty where it is none.
    #[serde(borrow, default)]
    pub op: Cow<'a, str>,
    /// The agent's name, empty in events about the host.
    #[serde(borrow, default)]
    pub agent: Cow<'a, str>,
    /// The session's id, empty in events about the host.
    #[serde(borrow, default)]
    pub session: Cow<'a, str>,
    /// The verdict.
    #[serde(borrow, default)]
    pub verdict: Cow<'a, str>,
}

/// One event as it is stored.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// What lines are chosen by.
    pub head: Head<'a>,
    /// The JSON object, without its newline.
    pub text: &'a str,
}

impl<'a> Line<'a> {
    /// Reads a line without its newline; `None` where it is not an event.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let head = serde_json::from_str(text).ok()?;
        Some(Self { head, text })
    }

    /// The whole event.
    ///
    /// # Errors
    /// A field or a word that this version does not know how to read.
    pub fn event(&self) -> Result<Event, serde_json::Error> {
        serde_json::from_str(self.text)
    }
}

/// `time` and `seq` of a line in the form in which [`crate::log::Log`] writes it, found without parsing.
pub(super) fn time_and_seq(line: &[u8]) -> Option<(&str, u64)> {
    use crate::event::time::TIME_BYTES;
    let (time, rest) = line.strip_prefix(br#"{"time":""#)?.split_at_checked(TIME_BYTES)?;
    let rest = rest.strip_prefix(br#"","seq":"#)?;
    let digits = rest.split(|byte| !byte.is_ascii_digit()).next()?;
    let seq = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((std::str::from_utf8(time).ok()?, seq))
}
