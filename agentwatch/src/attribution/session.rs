//! Sessions: running instances of agents.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ByNumber;
use crate::{
    control::state::{Confidence, Recognised, SessionView},
    event::{Cause, How},
};

/// Ended sessions that are remembered. The log has them all.
const ENDED_MAX: usize = 4096;

/// What a session begins with.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// The agent's name.
    pub agent: Arc<str>,
    /// Its owner.
    pub owner: Option<Arc<str>>,
    /// Its mode.
    pub mode: Arc<str>,
    /// Number of the session in which it begins.
    pub parent: Option<u64>,
    /// When, nanoseconds since 1970.
    pub since_ns: u64,
    /// How.
    pub how: How,
    /// By what.
    pub recognised: Recognised,
    /// Its first process.
    pub root_pid: u32,
}

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its number, which the kernel knows it by.
    pub number: u64,
    /// Its id, which people know it by.
    pub id: Arc<str>,
    /// What it began with.
    pub began: Beginning,
    /// Id of the session in which it began; of a caused one that which wrote what it uses.
    pub parent_id: Option<Arc<str>>,
    /// What made it, where it is a caused one.
    pub cause: Option<Arc<Cause>>,
    /// When its last process ended, nanoseconds since 1970.
    pub ended_ns: Option<u64>,
    /// Living processes.
    pub living: u64,
    /// All processes.
    pub total: u64,
    /// Events.
    pub events: u64,
    /// Refusals.
    pub denials: u64,
    /// Losses.
    pub losses: u64,
}

/// What is kept of a session over a restart of the daemon.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of `Session` and `Beginning`")]
pub struct Saved {
    pub number: u64,
    pub agent: Arc<str>,
    pub owner: Option<Arc<str>>,
    pub mode: Arc<str>,
    pub parent: Option<u64>,
    pub since_ns: u64,
    pub how: How,
    pub recognised: Recognised,
    pub root_pid: u32,
    #[serde(default)]
    pub cause: Option<Arc<Cause>>,
    pub ended_ns: Option<u64>,
    pub total: u64,
    pub events: u64,
    pub denials: u64,
    pub losses: u64,
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    boot_id: Arc<str>,
    by_number: ByNumber<u64, Session>,
    /// Numbers in the order in which the sessions began.
    order: Vec<u64>,
    /// Set when something changed that a restart must know.
    pub changed: bool,
}

impl Sessions {
    /// None yet.
    #[must_use]
    pub fn new(boot_id: Arc<str>) -> Self {
        Self { boot_id, by_number: ByNumber::default(), order: Vec::new(), changed: false }
    }

    /// One of them.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut Session> {
        self.by_number.get_mut(&number)
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&Session> {
        self.by_number.get(&number)
    }

    /// A session and those around it, the innermost first, as far as what holds one of them holds it as well: what only uses
    /// what a session left behind is not in it.
    pub fn around(&self, number: u64) -> impl Iterator<Item = u64> {
        let mut here = Some(number);
        let chain = std::iter::from_fn(move || {
            let number = here?;
            let began = self.get(number).map(|one| &one.began);
            here = began.filter(|began| began.how != How::Caused).and_then(|began| began.parent);
            Some(number)
        });
        chain.take(self.by_number.len() + 1)
    }

    /// All, in the order in which they began.
    pub fn all(&self) -> impl Iterator<Item = &Session> {
        self.order.iter().filter_map(|number| self.by_number.get(number))
    }

    /// Adds one.
    pub fn begin(&mut self, number: u64, began: Beginning) {
        let parent_id = began.parent.and_then(|parent| self.get(parent)).map(|parent| Arc::clone(&parent.id));
        let id = session_id(&began.agent, &self.boot_id, number);
        let session = Session {
            number,
            id,
            began,
            parent_id,
            cause: None,
            ended_ns: None,
            living: 0,
            total: 0,
            events: 0,
            denials: 0,
            losses: 0,
        };
        if self.by_number.insert(number, session).is_none() {
            self.order.push(number);
        }
        self.changed = true;
        self.forget_old();
    }

    /// Forgets the oldest ended sessions past the bound.
    fn forget_old(&mut self) {
        let mut ended = self.by_number.values().filter(|session| session.ended_ns.is_some()).count();
        if ended <= ENDED_MAX {
            return;
        }
        let by_number = &mut self.by_number;
        self.order.retain(|number| {
            let old = ended > ENDED_MAX && by_number.get(number).is_some_and(|one| one.ended_ns.is_some());
            if old {
                by_number.remove(number);
                ended -= 1;
            }
            !old
        });
    }

    /// What a restart must know.
    #[must_use]
    pub fn saved(&self) -> Vec<Saved> {
        self.all().map(saved).collect()
    }

    /// Takes up what an earlier daemon saved, in its order: parents before their children.
    pub fn restore(&mut self, all: Vec<Saved>) {
        for saved in all {
            let number = saved.number;
            self.begin(
                number,
                Beginning {
                    agent: saved.agent,
                    owner: saved.owner,
                    mode: saved.mode,
                    parent: saved.parent,
                    since_ns: saved.since_ns,
                    how: saved.how,
                    recognised: saved.recognised,
                    root_pid: saved.root_pid,
                },
            );
            if let Some(session) = self.get_mut(number) {
                session.caused(saved.cause);
                session.ended_ns = saved.ended_ns;
                session.total = saved.total;
                session.events = saved.events;
                session.denials = saved.denials;
                session.losses = saved.losses;
            }
        }
    }
}

fn saved(session: &Session) -> Saved {
    let began = session.began.clone();
    Saved {
        number: session.number,
        agent: began.agent,
        owner: began.owner,
        mode: began.mode,
        parent: began.parent,
        since_ns: began.since_ns,
        how: began.how,
        recognised: began.recognised,
        root_pid: began.root_pid,
        cause: session.cause.clone(),
        ended_ns: session.ended_ns,
        total: session.total,
        events: session.events,
        denials: session.denials,
        losses: session.losses,
    }
}

impl Session {
    /// Says what made it. The session that wrote that may be of an earlier boot.
    pub(super) fn caused(&mut self, cause: Option<Arc<Cause>>) {
        if let Some(cause) = &cause {
            self.parent_id = Some(Arc::clone(&cause.session));
        }
        self.cause = cause;
    }

    /// As the control API gives it.
    #[must_use]
    pub fn view(&self) -> SessionView {
        let (confidence, confidence_reason) = self.confidence();
        SessionView {
            id: Arc::clone(&self.id),
            agent: Arc::clone(&self.began.agent),
            owner: self.began.owner.clone(),
            mode: Arc::clone(&self.began.mode),
            parent: self.parent_id.clone(),
            since: crate::event::time::format_time(self.began.since_ns),
            ended: self.ended_ns.map(crate::event::time::format_time),
            attribution: self.began.how,
            recognised: self.began.recognised.clone(),
            root_pid: self.began.root_pid,
            processes: self.living,
            processes_total: self.total,
            events: self.events,
            denials: self.denials,
            losses: self.losses,
            confidence,
            confidence_reason,
        }
    }

    fn confidence(&self) -> (Confidence, Option<String>) {
        if self.losses > 0 {
            let reason =
                format!("{} events are missing: `agentwatch events --kind loss` lists them", self.losses);
            return (Confidence::Partial, Some(reason));
        }
        if self.began.how == How::Adopted {
            let reason = "it ran before agentwatch did: what it had done and opened by then was not seen";
            return (Confidence::Partial, Some(reason.to_owned()));
        }
        (Confidence::Full, None)
    }
}

/// The id of a session: the same for the same number in the same boot, whatever daemon asks.
#[must_use]
pub fn session_id(agent: &str, boot_id: &str, number: u64) -> Arc<str> {
    /// Letters that are not mistaken for each other.
    const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    const LEN: u32 = 6;
    // FNV-1a over boot and number, with a last mix so that near numbers give unlike ids.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in boot_id.bytes().chain(number.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let letter = |place: u32| LETTERS.get((hash >> (34 + place * 5) & 31) as usize).copied().unwrap_or(b'0');
    let code: String = (0..LEN).map(|place| char::from(letter(place))).collect();
    Arc::from(format!("{agent}-{code}"))
}
