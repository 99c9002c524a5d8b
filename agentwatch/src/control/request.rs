//! What the server asks the owner of the daemon's state, and the way there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};

use rustix::event::EventfdFlags;
use tokio::sync::oneshot;

use super::intent::{IntentBody, IntentCheckBody, IntentView};
use super::limits;
use super::policy::{AppliedView, PolicyFile, PolicyView};
use super::selftest::SelfTestView;
use super::state::{DaemonView, LaunchView, SessionView, TreeView};
use super::tool::{ToolBody, ToolView};
use super::unheard::{Untold, Word};
use crate::otlp::{Export, Refused};

/// Where the owner puts its answer. Sending fails where nobody waits for it any more; that is no error.
pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// One question to the owner. A request that is dropped unanswered becomes a 503.
#[derive(Debug)]
pub enum Request {
    /// The sessions on this host, in the order in which they began.
    Sessions {
        /// Ended ones too.
        all: bool,
        /// Answer.
        reply: Reply<Vec<SessionView>>,
    },
    /// One session with its processes.
    Tree {
        /// Id or the beginning of one: see [`resolve`].
        session: String,
        /// Answer.
        reply: Reply<TreeView>,
    },
    /// The daemon itself.
    Status {
        /// Answer.
        reply: Reply<DaemonView>,
    },
    /// The policy in force.
    Policy {
        /// Answer.
        reply: Reply<Box<PolicyView>>,
    },
    /// Bring a policy into force.
    Apply {
        /// Which, and who asks.
        apply: Apply,
        /// Answer, once it is in force.
        reply: Reply<AppliedView>,
    },
    /// Try whether what is forbidden is refused.
    SelfTest {
        /// Answer, once it is known.
        reply: Reply<SelfTestView>,
    },
    /// Say what a session is about to do.
    Declare {
        /// What.
        body: Box<IntentBody>,
        /// Who says so.
        caller: Caller,
        /// Answer, once it counts.
        reply: Reply<IntentView>,
    },
    /// What was declared, in its order.
    Intents {
        /// What is over too.
        all: bool,
        /// Answer.
        reply: Reply<Vec<IntentView>>,
    },
    /// One intent.
    Intent {
        /// Its id.
        id: String,
        /// Answer.
        reply: Reply<IntentView>,
    },
    /// Have an intent count no longer.
    CloseIntent {
        /// Its id.
        id: String,
        /// Who says so.
        caller: Caller,
        /// Answer, once it does not count any more.
        reply: Reply<IntentView>,
    },
    /// Say whether what was done is what it should be.
    CheckIntent {
        /// The intent's id.
        id: String,
        /// What was found.
        body: IntentCheckBody,
        /// Who says so.
        caller: Caller,
        /// Answer, once it is kept.
        reply: Reply<IntentView>,
    },
    /// A harness says what its agent does.
    Tool {
        /// What.
        body: Box<ToolBody>,
        /// Its hook's process.
        caller: Caller,
        /// Answer, once it counts.
        reply: Reply<ToolView>,
    },
    /// Tell in the log that somebody's word was refused.
    Unheard {
        /// Whose.
        caller: Caller,
        /// About what.
        word: Word,
        /// Why.
        why: String,
        /// Answer, once it is told.
        reply: Reply<()>,
    },
    /// The living processes of all sessions.
    Members {
        /// Answer.
        reply: Reply<Vec<Member>>,
    },
    /// Spans of tool calls.
    Spans {
        /// Them.
        export: Box<Export>,
        /// Who sends them.
        caller: Caller,
        /// Answer, once they count: what of them does not.
        reply: Reply<Refused>,
    },
    /// Make a running process a session.
    Launch {
        /// Which process, as the kernel says.
        launch: Launch,
        /// Answer, once everything that the process does belongs to the session.
        reply: Reply<LaunchView>,
    },
    /// End the daemon in good order. No endpoint sends this; the daemon's own signal handling may.
    Stop {
        /// Answered when the log is closed.
        reply: Reply<()>,
    },
}

impl Request {
    /// Whether nobody waits for the answer any more: the caller has been told 503, so a launch must not
    /// happen behind its back.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        match self {
            Self::Sessions { reply, .. } => reply.is_closed(),
            Self::Tree { reply, .. } => reply.is_closed(),
            Self::Status { reply } => reply.is_closed(),
            Self::Policy { reply } => reply.is_closed(),
            Self::Apply { reply, .. } => reply.is_closed(),
            Self::SelfTest { reply } => reply.is_closed(),
            Self::Declare { reply, .. }
            | Self::Intent { reply, .. }
            | Self::CloseIntent { reply, .. }
            | Self::CheckIntent { reply, .. } => reply.is_closed(),
            Self::Intents { reply, .. } => reply.is_closed(),
            Self::Tool { reply, .. } => reply.is_closed(),
            Self::Members { reply } => reply.is_closed(),
            Self::Spans { reply, .. } => reply.is_closed(),
            Self::Launch { reply, .. } => reply.is_closed(),
            Self::Unheard { reply, .. } | Self::Stop { reply } => reply.is_closed(),
        }
    }
}

/// A process that asks to become a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Name of the agent, as given: not yet known to exist.
    pub agent: String,
    /// Process id in the initial namespace.
    pub pid: u32,
    /// When it began, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
    /// User id in the initial namespace.
    pub uid: u32,
}

/// Who declares something, as the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Process id in the initial namespace, where it is in sight.
    pub pid: Option<u32>,
    /// When it began, in clock ticks since boot, where that was looked at.
    pub start_ticks: Option<u64>,
    /// User id in the initial namespace.
    pub uid: u32,
    /// Whether it came by the socket that is for root alone.
    pub by_control: bool,
}

/// A process of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Process id in the initial namespace.
    pub pid: u32,
    /// Number of its session.
    pub session: u64,
}

/// A policy that is to come into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apply {
    /// Its files.
    pub files: Vec<PolicyFile>,
    /// Who asks: process id, where it is in sight.
    pub pid: Option<u32>,
    /// Who asks: user id in the initial namespace.
    pub uid: u32,
}

/// Why the owner does not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No session has this id or one that begins like this.
    #[error("no session's id is or begins with `{0}`: `agentwatch agents --all` lists them")]
    NoSuchSession(String),
    /// Several do.
    #[error(
        "`{prefix}` begins the ids of {count} sessions, such as `{first}` and `{second}`: give more of it"
    )]
    Ambiguous {
        /// As given.
        prefix: String,
        /// How many.
        count: usize,
        /// One of them.
        first: Arc<str>,
        /// Another.
        second: Arc<str>,
    },
    /// No agent has this name.
    #[error("no agent is named `{agent}`: there are {}", list(known))]
    UnknownAgent {
        /// As given.
        agent: String,
        /// All names.
        known: Vec<Arc<str>>,
    },
    /// The process that asked has ended.
    #[error("process {0} ended while it was made a session")]
    ProcessGone(u32),
    /// The caller belongs to no session, and speaks for one.
    #[error(
        "this process is in no session, and only root declares for others: start it by `agentwatch exec`, or use `sudo agentwatch intent declare --session`"
    )]
    NotInSession,
    /// Spans come from nobody who is in a session.
    #[error(
        "spans are taken from processes in sessions, and who sends these is in none, or in several: start the agent by `agentwatch exec`"
    )]
    UnknownSender,
    /// The caller's session speaks for another.
    #[error(
        "a process of the session `{own}` cannot declare for, or close what is declared for, another session"
    )]
    NotYours {
        /// The caller's session.
        own: Arc<str>,
    },
    /// A process of a session closes what another than it declared for that session.
    #[error(
        "the {by} declared it: this process of the session cannot close it, an operator outside of all sessions can"
    )]
    NotYourIntent {
        /// Who declared it.
        by: &'static str,
    },
    /// A process of a session binds.
    #[error(
        "only an operator's intent binds, and this process is of a session: leave out `binding`, and the intent stands \
         beside what the session does"
    )]
    NotBinding,
    /// Root does not say for whom.
    #[error("say which session it is for: `--session`, one that `agentwatch agents` lists")]
    WhichSession,
    /// The session has ended.
    #[error("the session `{0}` has ended: there is nothing to declare for it")]
    SessionOver(Arc<str>),
    /// What was declared cannot be used: a sentence that says why.
    #[error("{0}")]
    BadIntent(String),
    /// The policy refuses some of a plan: a line for each step.
    #[error("{0}")]
    ForbiddenPlan(String),
    /// There are too many already.
    #[error("{0}")]
    TooManyIntents(String),
    /// No intent has this id.
    #[error("no intent has the id `{0}`: `agentwatch intent list --all` shows them")]
    NoSuchIntent(String),
    /// The policy has errors: all of them, each over several lines.
    #[error("{0}")]
    BadPolicy(String),
    /// This kernel cannot carry out the policy: a sentence that says why.
    #[error("{0}")]
    CannotEnforce(String),
    /// The kernel or the daemon cannot do it: a sentence that says why.
    #[error("{0}")]
    Unable(String),
}

/// Names in backticks, at most 40 of them.
fn list(names: &[Arc<str>]) -> String {
    const SHOWN: usize = 40;
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN) {
        _ if names.is_empty() => text.push_str("none"),
        Some(more @ 1..) => text.push_str(&format!(" and {more} more")),
        _ => {}
    }
    text
}

/// Finds the one session that a user means: the one with exactly this id, else the only one whose id
/// begins like this.
///
/// # Errors
/// None or several.
pub fn resolve<'a>(
    ids: impl IntoIterator<Item = &'a Arc<str>>,
    wanted: &str,
) -> Result<&'a Arc<str>, Refusal> {
    let (mut first, mut second, mut count) = (None, None, 0_usize);
    for id in ids.into_iter().filter(|id| !wanted.is_empty() && id.starts_with(wanted)) {
        if **id == *wanted {
            return Ok(id);
        }
        count += 1;
        if first.is_none() {
            first = Some(id);
        } else if second.is_none() {
            second = Some(id);
        }
    }
    match (first, second) {
        (Some(first), Some(second)) => Err(Refusal::Ambiguous {
            prefix: wanted.to_owned(),
            count,
            first: Arc::clone(first),
            second: Arc::clone(second),
        }),
        (Some(only), None) => Ok(only),
        _ => Err(Refusal::NoSuchSession(wanted.to_owned())),
    }
}

/// The way to the owner and its other end.
///
/// # Errors
/// The process has no descriptors left.
pub fn mailbox() -> io::Result<(Mailbox, Inbox)> {
    let bell = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = mpsc::sync_channel(limits::WAITING_REQUESTS);
    let untold = Untold::default();
    Ok((
        Mailbox { sender, bell: Arc::clone(&bell), untold: untold.clone() },
        Inbox { receiver, bell, untold },
    ))
}

/// Takes requests to the owner. Never waits.
#[derive(Clone, Debug)]
pub struct Mailbox {
    sender: SyncSender<Request>,
    bell: Arc<OwnedFd>,
    untold: Untold,
}

impl Mailbox {
    /// Refusals that the owner is not asked to tell one by one.
    #[must_use]
    pub const fn untold(&self) -> &Untold {
        &self.untold
    }

    /// Posts a request and rings the owner's bell. Where the box is full or the owner is gone the request
    /// is dropped, which its reply shows at once.
    pub fn post(&self, request: Request) {
        if self.sender.try_send(request).is_ok() {
            // Fails only where the counter is about to overflow, and then the bell rings already.
            let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
        }
    }
}

/// The owner's end: its descriptor is readable when a request waits, so that it fits into an event loop.
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<Request>,
    bell: Arc<OwnedFd>,
    untold: Untold,
}

impl Inbox {
    /// Refusals that were not told one by one.
    #[must_use]
    pub const fn untold(&self) -> &Untold {
        &self.untold
    }

    /// The requests that wait now, without those whose caller is gone. Silences the bell. Never waits.
    pub fn take(&self) -> impl Iterator<Item = Request> + '_ {
        // The bell first: a request posted after this rings it again.
        let _ = rustix::io::read(&*self.bell, &mut [0_u8; 8]);
        self.receiver.try_iter().filter(|request| !request.is_abandoned())
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn ids(texts: &[&str]) -> Vec<Arc<str>> {
        texts.iter().map(|text| Arc::from(*text)).collect()
    }

    #[test]
    fn an_id_or_its_only_beginning_is_found() {
        let all = ids(&["coding-7f3k2q", "coding-7f3k2qa", "data-1", "data-2", "data-3"]);
        assert_eq!(resolve(&all, "coding-7f3k2q").unwrap(), &all[0]);
        assert_eq!(resolve(&all, "coding-7f3k2qa").unwrap(), &all[1]);
        assert_eq!(resolve(&all, "data-2").unwrap(), &all[3]);
        assert_eq!(resolve(&all, ""), Err(Refusal::NoSuchSession(String::new())));
        assert_eq!(resolve(&all, "x"), Err(Refusal::NoSuchSession("x".into())));
        assert_eq!(
            resolve(&all, "data").unwrap_err().to_string(),
            "`data` begins the ids of 3 sessions, such as `data-1` and `data-2`: give more of it"
        );
    }

    #[test]
    fn unknown_agents_are_told_the_known_ones() {
        let refusal = |known| Refusal::UnknownAgent { agent: "x".into(), known }.to_string();
        assert_eq!(refusal(ids(&["aider", "goose"])), "no agent is named `x`: there are `aider`, `goose`");
        assert_eq!(refusal(vec![]), "no agent is named `x`: there are none");
        let many: Vec<Arc<str>> = (0..42).map(|n| Arc::from(format!("a{n}"))).collect();
        assert!(refusal(many).ends_with("`a39` and 2 more"));
    }

    #[test]
    fn the_bell_rings_once_for_all_and_abandoned_requests_are_skipped() {
        let (mailbox, inbox) = mailbox().unwrap();
        let rings = || {
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut [PollFd::new(&inbox, PollFlags::IN)], Some(&zero)).unwrap() == 1
        };
        assert!(!rings());
        let (reply, _waiting) = oneshot::channel();
        mailbox.post(Request::Status { reply });
        let (reply, gone) = oneshot::channel();
        mailbox.post(Request::Sessions { all: true, reply });
        drop(gone);
        assert!(rings());
        let taken: Vec<_> = inbox.take().collect();
        assert!(matches!(taken.as_slice(), [Request::Status { .. }]));
        assert!(!rings());
    }

    #[test]
    fn a_full_box_and_a_gone_owner_drop_the_request() {
        let (mailbox, inbox) = mailbox().unwrap();
        let ask = || {
            let (reply, waiting) = oneshot::channel();
            mailbox.post(Request::Status { reply });
            waiting
        };
        let kept: Vec<_> = (0..limits::WAITING_REQUESTS).map(|_| ask()).collect();
        assert_eq!(ask().try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
        assert_eq!(inbox.take().count(), kept.len());
        drop(inbox);
        assert_eq!(ask().try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
    }
}
