//! Events that could not be kept, counted until that can be written down.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::event::{Event, Kind, Loss, Op, Verdict};

/// Sums that are kept apart. Past it, further sessions share one sum that names no session.
const SUMS: usize = 4096;

/// Why the log cannot be written, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    full: bool,
    sentence: Arc<str>,
}

impl Trouble {
    pub fn new(source: &io::Error, since: &str) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let full = matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge);
        Self { full, sentence: format!("the log could not be written from {since} on: {source}").into() }
    }

    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    const fn reason(&self) -> &'static str {
        if self.full { "disk_full" } else { "log_unwritable" }
    }
}

/// Session, kind, operation and reason of what was lost.
type Key = (Arc<str>, Cow<'static, str>, Option<Op>, Cow<'static, str>);

/// Sums of what was lost, each as the event that will tell of it.
#[derive(Default)]
pub(super) struct Losses(BTreeMap<Key, Event>);

impl Losses {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts an event as lost. An event that itself tells of a loss is added to that loss.
    pub fn add(&mut self, lost: &Event, trouble: &Trouble) {
        let (kind, reason, count) = match &lost.loss {
            Some(loss) => (Cow::Owned(loss.kind.clone()), Cow::Owned(loss.reason.clone()), loss.count),
            None => (Cow::Borrowed(lost.kind.name()), Cow::Borrowed(trouble.reason()), lost.count),
        };
        let mut key: Key = (Arc::clone(&lost.session), kind, lost.op, reason);
        let named = self.0.len() < SUMS || self.0.contains_key(&key);
        if !named {
            key.0 = Arc::from("");
        }
        let sum = self.0.entry(key).or_insert_with_key(|(_, kind, op, reason)| {
            let loss = Loss { kind: kind.to_string(), reason: reason.to_string(), count: 0 };
            loss_event(lost, loss, *op, named, trouble)
        });
        if let Some(loss) = &mut sum.loss {
            loss.count = loss.count.saturating_add(count);
        }
        // The last one's time, as a loss is written after it and times of a segment only ever grow.
        sum.time.clone_from(&lost.time);
    }

    /// The sums as events, which are then counted no more.
    pub fn take(&mut self) -> impl Iterator<Item = Event> + use<> {
        std::mem::take(&mut self.0).into_values()
    }

    /// Number of lost events.
    pub fn count(&self) -> u64 {
        self.0.values().filter_map(|event| event.loss.as_ref()).map(|loss| loss.count).sum()
    }
}

fn loss_event(like: &Event, loss: Loss, op: Option<Op>, named: bool, trouble: &Trouble) -> Event {
    let mut event = host_event(like, Kind::Loss, trouble.sentence.to_string());
    event.op = op;
    event.loss = Some(loss);
    if named {
        event.agent = Arc::clone(&like.agent);
        event.owner.clone_from(&like.owner);
        event.session = Arc::clone(&like.session);
        event.parent_session.clone_from(&like.parent_session);
    }
    event
}

/// An event about the host itself, at the time of another one.
pub(super) fn host_event(like: &Event, kind: Kind, reason: String) -> Event {
    Event {
        time: like.time.clone(),
        seq: 0,
        host: Arc::clone(&like.host),
        boot_id: Arc::clone(&like.boot_id),
        kind,
        op: None,
        agent: Arc::from(""),
        owner: None,
        session: Arc::from(""),
        parent_session: None,
        attribution: None,
        process: None,
        file: None,
        network: None,
        guard: None,
        cause: None,
        child: None,
        exit: None,
        loss: None,
        command: None,
        verdict: Verdict::Allowed,
        rule: None,
        reason: Some(reason),
        policy: None,
        intent: None,
        tool_call: None,
        prompt_id: None,
        prompt: None,
        outcome: None,
        span: None,
        context: None,
        errno: None,
        count: 1,
        time_last: None,
    }
}
