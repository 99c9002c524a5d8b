//! The stages joined: ring, fold, decode, attribution, log.

use std::fmt::Display;

use agentwatch_common::{kind::RecordKind, maps::LossKey};
use aya::maps::{MapData, RingBuf};

use crate::{
    attribution::Attribution,
    decode::{DecodeError, decode},
    event::{Event, time::format_time},
    fold::{Folder, Repeats, Told},
    log::Log,
    selftest::SESSION,
    slo::Spikes,
};

/// Records taken from the ring before requests are looked at.
const TURN_MAX: u64 = 16_384;
/// Turns after which the ring has been read whole, whatever comes in meanwhile.
const TURNS_MAX: u32 = 1_024;

/// What the stages keep between two records.
#[derive(Debug, Default)]
pub struct Pipeline {
    folder: Folder,
    due: Vec<Repeats>,
    events: Vec<Event>,
    spikes: Spikes,
    undecodable: u64,
    last_error: Option<DecodeError>,
    last_warning: String,
    /// Events for which the log had no room.
    pub unkept: u64,
    /// Whether the last wait was an idle one.
    pub was_idle: bool,
}

impl Pipeline {
    /// Takes what waits in the ring. Gives how many records there were.
    pub fn drain(&mut self, ring: &mut RingBuf<MapData>, state: &mut Attribution, log: &mut Log) -> u64 {
        let mut taken = 0;
        while taken < TURN_MAX {
            let Some(item) = ring.next() else { break };
            taken += 1;
            self.take(&item, state, log);
        }
        taken
    }

    /// Takes all that waited in the ring when this began, and what came in meanwhile.
    pub fn drain_whole(&mut self, ring: &mut RingBuf<MapData>, state: &mut Attribution, log: &mut Log) {
        for _ in 0..TURNS_MAX {
            if self.drain(ring, state, log) < TURN_MAX {
                break;
            }
        }
        self.flush(state, log);
    }

    /// One record.
    fn take(&mut self, bytes: &[u8], state: &mut Attribution, log: &mut Log) {
        let Some((kind, time_ns, session)) = glance(bytes) else {
            self.undecodable += 1;
            return;
        };
        if session == SESSION {
            return;
        }
        let told = self.folder.admit(bytes, kind, time_ns, &mut self.due);
        self.tell_due(state, log);
        if told == Told::Now {
            self.tell(bytes, None, state, log);
        }
    }

    /// Tells repeats whose window is over.
    pub fn expire(&mut self, now_ns: u64, state: &mut Attribution, log: &mut Log) {
        self.folder.expire(now_ns, &mut self.due);
        self.tell_due(state, log);
    }

    /// Tells all repeats.
    pub fn flush(&mut self, state: &mut Attribution, log: &mut Log) {
        self.folder.flush(&mut self.due);
        self.tell_due(state, log);
    }

    fn tell_due(&mut self, state: &mut Attribution, log: &mut Log) {
        if self.due.is_empty() {
            return;
        }
        for repeats in std::mem::take(&mut self.due) {
            self.tell(&repeats.record, Some((repeats.count, repeats.last_ns)), state, log);
        }
    }

    /// Decodes a record and writes the events that it gives.
    fn tell(&mut self, bytes: &[u8], repeats: Option<(u64, u64)>, state: &mut Attribution, log: &mut Log) {
        let record = match decode(bytes) {
            Ok(record) => record,
            Err(error) => {
                self.undecodable += repeats.map_or(1, |(count, _)| count);
                self.last_error = Some(error);
                return;
            }
        };
        state.apply(&record, bytes, &mut self.events);
        for mut event in self.events.drain(..) {
            if let Some((count, last_ns)) = repeats {
                state.count_repeats(&event, &record.header, count);
                event.count = count;
                event.time_last = (count > 1).then(|| format_time(state.host.unix_ns(last_ns)));
            }
            let spike = self.spikes.count(&event, state.host.unix_ns(record.header.time_ns));
            log.append(&mut event);
            state.note_left_behind(&event, record.header.session);
            if let Some(mut spike) = spike {
                log.append(&mut spike);
            }
            // The log could not be written and has no more room for what waits; it tells when it can again.
            if event.seq == 0 {
                self.unkept += event.count;
                if let Some(session) = state.sessions.get_mut(record.header.session) {
                    session.losses += event.count;
                }
            }
        }
    }

    /// An event about records that could not be read, if there were any.
    pub fn take_undecodable(&mut self, state: &mut Attribution, now_ns: u64) -> Option<Event> {
        let count = std::mem::take(&mut self.undecodable);
        if count == 0 {
            return None;
        }
        let mut event = state.loss(LossKey::default(), count, "undecodable", now_ns);
        event.reason = self.last_error.take().map(|error| error.to_string());
        Some(event)
    }

    /// Warns of a trouble that stays, once.
    pub fn warn_once(&mut self, error: &impl Display) {
        let text = error.to_string();
        if self.last_warning != text {
            tracing::error!("{text}");
            self.last_warning = text;
        }
    }
}

/// Kind, time and session of a record, before it is decoded.
fn glance(bytes: &[u8]) -> Option<(RecordKind, u64, u64)> {
    let kind = u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?);
    let time = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    let session = u64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?);
    Some((RecordKind::from_raw(kind), time, session))
}
