//! What callers wanted to say, and was refused: broken, too large, too much at once, not theirs to say. Each is told in the
//! log by the owner, as far as that is no flood; the rest is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::failure::Failure;
use super::request::{Refusal, Request};
use super::routes::{Action, Found};
use super::service::Call;

/// How many refusals nobody told one by one.
#[derive(Clone, Debug, Default)]
pub struct Untold(Arc<AtomicU64>);

impl Untold {
    /// One more.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were since the last call.
    #[must_use]
    pub fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// What somebody's word is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// What a session is about to do.
    OfIntent,
    /// What its tools do.
    OfTool,
}

impl Word {
    /// Where a request is somebody's word about what a session does.
    pub(super) const fn of(found: &Found) -> Option<Self> {
        match found {
            Found::Action(Action::Declare | Action::CloseIntent | Action::CheckIntent, _) => {
                Some(Self::OfIntent)
            }
            Found::Action(Action::Tool, _) => Some(Self::OfTool),
            _ => None,
        }
    }
}

impl Call {
    /// Has it told that somebody's word was refused. Comes back once that is done, so that the caller is still there to be
    /// known.
    pub(super) async fn tell_refusal(&self, word: Word, failure: &Failure) {
        let untold = self.shared.mailbox.untold();
        // Who is nobody cannot fill the log, and an owner that does not answer tells nothing now.
        if matches!(failure, Failure::Refused(Refusal::NotInSession) | Failure::Silent(_)) {
            return untold.count();
        }
        let is_told = |pid, uid| self.shared.refusals.borrow_mut().allows(pid, uid, Instant::now());
        let caller =
            self.caller().ok().filter(|caller| caller.pid.is_some_and(|pid| is_told(pid, caller.uid)));
        let Some(caller) = caller else { return untold.count() };
        let why = failure.to_string().replace("\n  ", "; ");
        if self.ask(|reply| Request::Unheard { caller, word, why, reply }).await.is_err() {
            untold.count();
        }
    }
}
