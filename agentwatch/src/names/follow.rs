//! The thread that asks for names, each again when its time is over.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::EventfdFlags;
use simple_dns::TYPE;

use super::ASK_AGAIN_S;
use super::answer::Outcome;
use super::ask::{Wanted, ask};
use super::config::{self, Hosts, Resolv};
use crate::policy::address::DnsName;

/// How often `/etc/hosts` is looked at, and the shortest time between two rounds of questions.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of the thread's stack.
const STACK_BYTES: usize = 512 << 10;

/// What came of asking for a name: all its addresses, or why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The name, as the policy or `/etc/hosts` has it.
    pub name: String,
    /// Its addresses.
    pub found: Result<Vec<IpAddr>, String>,
}

/// Where the host's files are.
#[derive(Clone, Debug)]
pub struct Files {
    /// `/etc/resolv.conf`
    pub resolv: PathBuf,
    /// `/etc/hosts`
    pub hosts: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self { resolv: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() }
    }
}

/// What is to be followed.
#[derive(Debug, Default)]
struct Asked {
    /// Names with when they are due; `None` where they were never asked for.
    names: BTreeMap<String, Option<Instant>>,
    /// Patterns for names: `/etc/hosts` can have some that they cover.
    patterns: Vec<DnsName>,
    /// How often was said what is to be followed, and how often that was looked at whole since.
    said: u64,
    done: u64,
    /// Nobody needs the thread any more.
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    asked: Mutex<Asked>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread, seen by others. It sleeps as long as nothing is to be followed.
#[derive(Debug)]
pub struct Follower {
    orders: Orders,
    reports: Receiver<Report>,
    bell: Arc<OwnedFd>,
}

/// What names to follow: can be said from any thread.
#[derive(Clone, Debug)]
pub struct Orders(Arc<Shared>);

impl Orders {
    /// Has names followed beside those that are, and waits so long at most until each was asked for once.
    pub fn follow_too(&self, patterns: &[DnsName], patience: Duration) {
        let mut asked = self.0.lock();
        let new: Vec<DnsName> =
            patterns.iter().filter(|one| !asked.patterns.contains(one)).cloned().collect();
        if new.is_empty() {
            return;
        }
        for pattern in new.iter().filter(|pattern| !pattern.below) {
            asked.names.entry(pattern.name.clone()).or_insert(None);
        }
        asked.patterns.extend(new);
        asked.said += 1;
        let said = asked.said;
        self.0.changed.notify_all();
        drop(self.0.changed.wait_timeout_while(asked, patience, |asked| asked.done < said));
    }

    /// Has these names followed and no others.
    pub fn follow_only(&self, patterns: Vec<DnsName>) {
        let mut asked = self.0.lock();
        asked.names.retain(|name, _| patterns.iter().any(|pattern| !pattern.below && pattern.name == *name));
        for pattern in patterns.iter().filter(|pattern| !pattern.below) {
            asked.names.entry(pattern.name.clone()).or_insert(None);
        }
        if asked.patterns != patterns {
            asked.patterns = patterns;
            asked.said += 1;
            self.0.changed.notify_all();
        }
    }
}

impl Follower {
    /// Begins.
    ///
    /// # Errors
    /// The process has no threads or descriptors left.
    pub fn start(files: Files) -> io::Result<Self> {
        let bell = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let shared = Arc::new(Shared::default());
        let (sender, reports) = mpsc::channel();
        let mut worker = Worker {
            files,
            shared: Arc::clone(&shared),
            reports: sender,
            bell: Arc::clone(&bell),
            hosts_text: String::new(),
            all_hosts: Hosts::default(),
            hosts: BTreeMap::new(),
            rounds: 0,
        };
        std::thread::Builder::new()
            .name("names".into())
            .stack_size(STACK_BYTES)
            .spawn(move || worker.run())?;
        Ok(Self { orders: Orders(shared), reports, bell })
    }

    /// What others say what is to be followed by.
    #[must_use]
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// What came since the last call. Silences the bell. Never waits.
    pub fn take(&self) -> Vec<Report> {
        // The bell first: what comes after this rings it again.
        let _ = rustix::io::read(&*self.bell, &mut [0_u8; 8]);
        self.reports.try_iter().collect()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.orders.0.lock().ended = true;
        self.orders.0.changed.notify_all();
    }
}

impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// The thread's own.
struct Worker {
    files: Files,
    shared: Arc<Shared>,
    reports: Sender<Report>,
    bell: Arc<OwnedFd>,
    /// `/etc/hosts` as it was read last, and what of it was told.
    hosts_text: String,
    all_hosts: Hosts,
    hosts: BTreeMap<String, Vec<IpAddr>>,
    rounds: u64,
}

/// What is to be done in a round.
struct Round {
    /// Which of [`Asked::said`] it knows.
    said: u64,
    /// Names that are due.
    due: Vec<String>,
    patterns: Vec<DnsName>,
}

/// Rounds after which is told again what `/etc/hosts` goes on to say: well within the time that it counts without that.
const TELL_AGAIN: u64 = 60;

impl Worker {
    fn run(&mut self) {
        while let Some(round) = self.wait() {
            let hosts = self.hosts_of(&round.patterns);
            let found = self.find(&round.due, &hosts);
            let mut told = !found.is_empty();
            let mut asked = self.shared.lock();
            for (name, found, ttl_s) in found {
                let again = u64::from(ttl_s).clamp(*ASK_AGAIN_S.start(), *ASK_AGAIN_S.end());
                if let Some(place) = asked.names.get_mut(&name) {
                    *place = Some(Instant::now() + Duration::from_secs(again));
                }
                // Fails only where the daemon ends.
                let _ = self.reports.send(Report { name, found });
            }
            drop(asked);
            told |= self.tell_hosts(&round.due, hosts);
            if told {
                // Fails only where the bell rings already.
                let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
            }
            self.shared.lock().done = round.said;
            self.shared.changed.notify_all();
        }
    }

    /// Tells what `/etc/hosts` says of names that nobody asks for: what is new, what is gone, and now and then all.
    fn tell_hosts(&mut self, due: &[String], hosts: BTreeMap<String, Vec<IpAddr>>) -> bool {
        self.rounds += 1;
        let all = self.rounds.is_multiple_of(TELL_AGAIN);
        let mut told = false;
        for (name, addresses) in hosts.iter().filter(|(name, _)| !due.contains(name)) {
            if all || self.hosts.get(name) != Some(addresses) {
                told |= self.tell(name, addresses);
            }
        }
        let before = std::mem::replace(&mut self.hosts, hosts);
        for name in before.keys().filter(|name| !self.hosts.contains_key(*name) && !due.contains(name)) {
            told |= self.tell(name, &[]);
        }
        told
    }

    fn tell(&self, name: &str, addresses: &[IpAddr]) -> bool {
        let report = Report { name: name.to_owned(), found: Ok(addresses.to_vec()) };
        self.reports.send(report).is_ok()
    }

    /// Waits until something is due, or the file is to be looked at. Nothing where all is over.
    fn wait(&self) -> Option<Round> {
        let mut asked = self.shared.lock();
        let began = Instant::now();
        loop {
            if asked.ended {
                return None;
            }
            let now = Instant::now();
            let is_due = |due: &Option<Instant>| due.is_none_or(|due| due <= now);
            if asked.done != asked.said || !asked.patterns.is_empty() && now.duration_since(began) >= LOOK {
                let due = asked.names.iter().filter(|(_, due)| is_due(due)).map(|(name, _)| name.clone());
                return Some(Round {
                    said: asked.said,
                    due: due.collect(),
                    patterns: asked.patterns.clone(),
                });
            }
            asked = if asked.patterns.is_empty() {
                self.shared.changed.wait(asked).unwrap_or_else(PoisonError::into_inner)
            } else {
                let wait = self.shared.changed.wait_timeout(asked, LOOK);
                wait.unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    /// What `/etc/hosts` says of names that a pattern covers.
    fn hosts_of(&mut self, patterns: &[DnsName]) -> BTreeMap<String, Vec<IpAddr>> {
        let text = config::read(&self.files.hosts);
        if text != self.hosts_text {
            self.all_hosts = Hosts::parse(&text);
            self.hosts_text = text;
        }
        let is_covered = |name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        let covered = self.all_hosts.0.iter().filter(|(name, _)| is_covered(name));
        covered.map(|(name, addresses)| (name.clone(), addresses.clone())).collect()
    }

    /// Asks for names: their addresses, and for how many seconds that holds.
    fn find(
        &self,
        names: &[String],
        hosts: &BTreeMap<String, Vec<IpAddr>>,
    ) -> Vec<(String, Result<Vec<IpAddr>, String>, u32)> {
        if names.is_empty() {
            return Vec::new();
        }
        let resolv = Resolv::parse(&config::read(&self.files.resolv));
        let mut open: Vec<Search> = names.iter().map(|name| Search::new(&resolv, name)).collect();
        while open.iter().any(Search::is_open) {
            let wanted: Vec<Wanted> = open.iter().filter_map(Search::wanted).flatten().collect();
            let mut outcomes = ask(&resolv, &wanted).into_iter();
            for search in open.iter_mut().filter(|search| search.is_open()) {
                search.take([outcomes.next(), outcomes.next()]);
            }
        }
        let with_hosts = |search: Search| {
            let (name, mut found, ttl_s) = search.end();
            match (&mut found, hosts.get(&name)) {
                (Ok(addresses), Some(more)) => addresses.extend(more),
                (Err(_), Some(known)) => found = Ok(known.clone()),
                (_, None) => {}
            }
            (name, found, ttl_s)
        };
        open.into_iter().map(with_hosts).collect()
    }
}

/// The search for a name's addresses.
struct Search {
    name: String,
    /// What is still to be asked, the next one last.
    candidates: Vec<String>,
    found: Vec<IpAddr>,
    ttl_s: u32,
    problem: Option<String>,
}

/// Seconds after which is asked again where no server answered.
const FAILED_S: u32 = 3;

impl Search {
    fn new(resolv: &Resolv, name: &str) -> Self {
        let mut candidates = resolv.candidates(name);
        candidates.reverse();
        Self { name: name.to_owned(), candidates, found: Vec::new(), ttl_s: u32::MAX, problem: None }
    }

    fn is_open(&self) -> bool {
        self.found.is_empty() && self.problem.is_none() && !self.candidates.is_empty()
    }

    fn wanted(&self) -> Option<[Wanted; 2]> {
        let name = self.candidates.last().filter(|_| self.is_open())?;
        Some([TYPE::A, TYPE::AAAA].map(|kind| (name.clone(), kind)))
    }

    fn take(&mut self, outcomes: [Option<Outcome>; 2]) {
        self.candidates.pop();
        for outcome in outcomes {
            match outcome {
                Some(Outcome::Answer(answer)) => {
                    self.found.extend(answer.addresses);
                    self.ttl_s = self.ttl_s.min(answer.ttl_s);
                }
                Some(Outcome::Failed(problem)) => self.problem = Some(problem),
                Some(Outcome::Truncated) | None => self.problem = Some("no whole answer".to_owned()),
            }
        }
    }

    /// Half an answer is taken for what it has: the other half is asked for again soon.
    fn end(self) -> (String, Result<Vec<IpAddr>, String>, u32) {
        match self.problem {
            Some(problem) if self.found.is_empty() => (self.name, Err(problem), FAILED_S),
            Some(_) => (self.name, Ok(self.found), FAILED_S),
            None => (self.name, Ok(self.found), self.ttl_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn pattern(name: &str, below: bool) -> DnsName {
        DnsName { name: name.into(), below }
    }

    #[test]
    fn the_hosts_file_is_followed_by_name_and_by_pattern() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { resolv: dir.path().join("resolv.conf"), hosts: dir.path().join("hosts") };
        // Nobody answers there.
        std::fs::write(&files.resolv, "nameserver 127.255.255.254\noptions timeout:1\n").unwrap();
        std::fs::write(&files.hosts, "10.0.0.1 db.test x.prod.test other.test\n").unwrap();
        let follower = Follower::start(files.clone()).unwrap();
        let patterns =
            vec![pattern("db.test", false), pattern("none.test", false), pattern("prod.test", true)];
        follower.orders().follow_too(&patterns, Duration::from_secs(60));
        let mut reports = follower.take();
        reports.sort_by(|one, two| one.name.cmp(&two.name));
        let names: Vec<&str> = reports.iter().map(|report| report.name.as_str()).collect();
        assert_eq!(names, ["db.test", "none.test", "x.prod.test"]);
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        assert_eq!(reports[0].found, Ok(vec![ip(1)]));
        assert!(reports[1].found.is_err(), "{reports:?}");
        assert_eq!(reports[2].found, Ok(vec![ip(1)]));
        std::fs::write(&files.hosts, "10.0.0.2 db.test y.prod.test\n").unwrap();
        let mut seen: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        while seen.get("db.test") != Some(&vec![ip(2)]) || seen.get("y.prod.test") != Some(&vec![ip(2)]) {
            assert!(Instant::now() < deadline, "{seen:?}");
            let timeout = Timespec { tv_sec: 5, tv_nsec: 0 };
            poll(&mut [PollFd::new(&follower, PollFlags::IN)], Some(&timeout)).unwrap();
            seen.extend(
                follower.take().into_iter().filter_map(|report| Some((report.name, report.found.ok()?))),
            );
        }
        follower.orders().follow_only(Vec::new());
    }
}
