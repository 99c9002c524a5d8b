//! Policies are read and compiled on a thread of their own: the ring must not wait for that.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
};

use rustix::event::EventfdFlags;

use super::{
    applied::Applied,
    policy::{Loaded, Wanted},
    start::StartError,
    surroundings,
};
use crate::{
    control::{
        Reply,
        policy::{AppliedView, PolicyOrigin},
    },
    places::Places,
    policy::{self, Diagnostic, Policy, Problems, Source},
};

/// Policies that wait at most; past it the caller is told so.
const WAITING: usize = 8;
/// Bytes of the thread's stack, as many as a program's first thread has: policies are trees.
const STACK_BYTES: usize = 8 << 20;

/// Where a policy comes from.
#[derive(Debug)]
pub enum From {
    /// The files that the daemon was started with.
    Files {
        /// Nothing is done where they are as they were: a notice of the file system can mean nothing.
        if_changed: bool,
    },
    /// What is in force, of which something may be called otherwise now.
    Surroundings {
        /// The policy.
        policy: Arc<Policy>,
        /// What things were called when it was compiled.
        places: Arc<Places>,
        /// Where it is from.
        origin: PolicyOrigin,
    },
    /// A caller of the control API.
    Caller {
        /// The files.
        sources: Vec<Source>,
        /// Where the answer goes.
        reply: Reply<AppliedView>,
    },
}

/// A policy that is to come into force.
#[derive(Debug)]
struct Job {
    from: From,
    why: String,
}

/// A policy that is ready, or cannot be.
pub struct Ready {
    /// Why it is to come into force.
    pub why: String,
    /// Where the answer goes, where a caller waits for one.
    pub reply: Option<Reply<AppliedView>>,
    /// The policy of which this is the same, for what things are called now.
    pub of: Option<Arc<Policy>>,
    /// The policy; nothing where nothing has changed.
    pub result: Result<Option<Loaded>, StartError>,
}

/// The thread, seen from the owner of the daemon's state.
#[derive(Debug)]
pub struct Preparing {
    jobs: SyncSender<Job>,
    ready: Receiver<Ready>,
    bell: Arc<OwnedFd>,
    /// The files are being read.
    reading: bool,
    /// They are to be read once more after that.
    again: Option<(String, bool)>,
}

impl Preparing {
    /// Begins. What callers give is kept in the state folder.
    ///
    /// # Errors
    /// The process has no threads or descriptors left.
    pub fn start(wanted: Wanted, state: PathBuf) -> io::Result<Self> {
        let bell = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (jobs, taken) = mpsc::sync_channel::<Job>(WAITING);
        let (told, ready) = mpsc::channel();
        let ring = Arc::clone(&bell);
        let seen = wanted.path.as_deref().map_or_else(String::new, |path| trace(&policy::read(path)));
        let mut worker = Worker { wanted, state, seen };
        let run = move || {
            for job in taken {
                if told.send(worker.prepare(job)).is_err() {
                    break;
                }
                // Fails only where the bell rings already.
                let _ = rustix::io::write(&*ring, &1_u64.to_ne_bytes());
            }
        };
        std::thread::Builder::new().name("policy".into()).stack_size(STACK_BYTES).spawn(run)?;
        Ok(Self { jobs, ready, bell, reading: false, again: None })
    }

    /// Has the files read, and no more where they have not changed and that is asked for. While they are being read,
    /// that is done once more afterwards, however often it is asked for.
    pub fn files(&mut self, why: &str, if_changed: bool) {
        if self.reading {
            let if_changed = if_changed && self.again.as_ref().is_none_or(|(_, before)| *before);
            self.again = Some((why.to_owned(), if_changed));
            return;
        }
        let job = Job { from: From::Files { if_changed }, why: why.to_owned() };
        match self.jobs.try_send(job) {
            Ok(()) => self.reading = true,
            Err(_) => tracing::error!("the policy is not read again ({why}): too many policies wait"),
        }
    }

    /// Has what is in force made ready for what things are called now, where that has changed.
    pub fn surroundings(&self, policy: Arc<Policy>, places: Arc<Places>, origin: PolicyOrigin) {
        let from = From::Surroundings { policy, places, origin };
        let why = "what is mounted has changed, or a link".to_owned();
        if self.jobs.try_send(Job { from, why }).is_err() {
            tracing::error!("changed mounts and links are not looked at: too many policies wait");
        }
    }

    /// Has a caller's policy made ready. A reply that is dropped is an answer too.
    pub fn caller(&self, why: String, sources: Vec<Source>, reply: Reply<AppliedView>) {
        if self.jobs.try_send(Job { from: From::Caller { sources, reply }, why }).is_err() {
            tracing::error!("a policy is not taken: too many wait");
        }
    }

    /// What is ready now. Silences the bell. Never waits.
    pub fn take(&mut self) -> Vec<Ready> {
        // The bell first: what is ready after this rings it again.
        let _ = rustix::io::read(&*self.bell, &mut [0_u8; 8]);
        let ready: Vec<Ready> = self.ready.try_iter().collect();
        if ready.iter().any(|one| one.reply.is_none() && one.of.is_none()) {
            self.reading = false;
            if let Some((why, if_changed)) = self.again.take() {
                self.files(&why, if_changed);
            }
        }
        ready
    }
}

impl AsFd for Preparing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// The thread's own.
struct Worker {
    wanted: Wanted,
    state: PathBuf,
    /// What the files were when they were looked at last.
    seen: String,
}

impl Worker {
    fn prepare(&mut self, job: Job) -> Ready {
        let Job { from, why } = job;
        match from {
            From::Files { if_changed } => {
                Ready { why, reply: None, of: None, result: self.files(if_changed) }
            }
            From::Surroundings { policy, places, origin } => {
                let of = Some(Arc::clone(&policy));
                Ready { why, reply: None, of, result: renamed(policy, &places, origin) }
            }
            From::Caller { sources, reply } => {
                Ready { why, reply: Some(reply), of: None, result: self.given(sources).map(Some) }
            }
        }
    }

    /// Without files what was applied last stays.
    fn files(&mut self, if_changed: bool) -> Result<Option<Loaded>, StartError> {
        let Some(path) = &self.wanted.path else {
            return Loaded::at_start(&self.wanted, &self.state).map(|(loaded, _)| Some(loaded));
        };
        let read = policy::read(path);
        let before = std::mem::replace(&mut self.seen, trace(&read));
        if if_changed && before == self.seen {
            return Ok(None);
        }
        let (sources, warnings) = read.map_err(StartError::Policy)?;
        Loaded::from_files(&self.wanted, sources, warnings).map(Some)
    }

    /// It is written where the next start finds it as soon as it is in force.
    fn given(&self, sources: Vec<Source>) -> Result<Loaded, StartError> {
        let applied = Applied::new(self.wanted.path.as_deref(), &sources);
        let loaded = Loaded::given(&self.wanted, sources)?;
        applied.prepare(&self.state)?;
        Ok(loaded)
    }
}

/// A policy for what things are called now; nothing where they are called as they were.
fn renamed(policy: Arc<Policy>, before: &Places, origin: PolicyOrigin) -> Result<Option<Loaded>, StartError> {
    let places = surroundings::look(&policy)?;
    if places == *before {
        return Ok(None);
    }
    surroundings::tell(&places);
    Loaded::of(policy, places, origin).map(Some)
}

/// What files are told apart by, those that cannot be read too.
fn trace(read: &Result<(Vec<Source>, Vec<Diagnostic>), Problems>) -> String {
    match read {
        Ok((sources, _)) => policy::hash(sources),
        Err(problems) => problems.to_string(),
    }
}
