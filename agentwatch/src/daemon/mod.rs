//! The daemon: one thread owns all state and joins the stages.
//!
//! Ring → fold → decode → attribution → log. Everything else (the control API, signals, losses) is looked at
//! between two turns of the ring.

mod applied;
mod bindings;
mod calls;
mod facts;
mod intents;
mod jobs;
mod left_behind;
mod losses;
mod mark;
mod names;
mod own;
mod pipeline;
mod policy;
mod prepare;
mod relayed;
mod requests;
mod rules;
mod saved;
mod selftest;
mod spans;
mod standing;
mod start;
mod surroundings;
mod takeover;
mod transient;
mod watch;

use std::{collections::BTreeMap, net::SocketAddr, os::fd::AsFd as _, sync::Arc};

use agentwatch_common::maps::{LossKey, control, wake};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::{losses::Losses, mark::Numbers, pipeline::Pipeline};
use crate::{
    attribution::Attribution,
    control::{Inbox, Server, policy::PolicyView, required},
    event::Kind,
    kernel::{self, Abilities, maps::Maps, rules::RuleMaps, skips::Programs},
    log::Log,
    paths::Paths,
    places::Places,
    policy::{Mode, Policy},
    written,
};

pub use self::{
    selftest::alone as self_test_alone,
    start::{Options, StartError},
};

/// Milliseconds between two looks at the ring while something happens. The kernel wakes the daemon earlier
/// where much waits.
const BUSY_MS: i64 = 20;
/// Milliseconds between two looks while nothing happens. The next record wakes the daemon at once.
const IDLE_MS: i64 = 1_000;
/// Looks that find nothing before the daemon says that it sleeps.
const LOOKS_BEFORE_IDLE: u32 = 10;
/// Nanoseconds between two looks at losses, old segments and the clock, and two savings of what a restart must know.
const UPKEEP_NS: u64 = 1_000_000_000;

/// Nanoseconds between two looks at how often the kernel skipped programs.
const PROGRAMS_NS: u64 = 10_000_000_000;

/// The running daemon.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct Daemon {
    paths: Paths,
    _host_lock: kernel::HostLock,
    maps: Maps,
    rule_maps: RuleMaps,
    abilities: Abilities,
    bindings: bindings::Bindings,
    state: Attribution,
    pipeline: Pipeline,
    log: Log,
    losses: Losses,
    programs: Programs,
    looked_at_programs_ns: u64,
    looked_at_untold_ns: u64,
    numbers: Numbers,
    inbox: Inbox,
    _server: Server,
    /// Where spans are taken.
    otlp: Option<SocketAddr>,
    strangers: spans::Strangers,
    signals: start::Signals,
    since: String,
    kernel_release: Arc<str>,
    detach_on_exit: bool,
    wanted: policy::Wanted,
    in_force: PolicyView,
    policy: Arc<Policy>,
    /// What things were called when the policy was compiled.
    places: Arc<Places>,
    surroundings: surroundings::Surroundings,
    self_tests: selftest::SelfTests,
    /// What sessions left behind, on disk.
    kept: written::Kept,
    looks: jobs::Looks,
    /// See [`policy::Loaded::modes`].
    modes: Arc<BTreeMap<u32, Mode>>,
    preparing: prepare::Preparing,
    names: names::Names,
    watch: Option<watch::Watch>,
    last_upkeep_ns: u64,
    /// Something happened since sessions were saved. The kernel's tables know the essence meanwhile.
    unsaved: bool,
    syncing: Option<std::thread::JoinHandle<()>>,
}

impl Daemon {
    /// Runs until a signal asks it to end.
    ///
    /// # Errors
    /// Only those of the very beginning; later ones are events and warnings, as nobody stands by.
    pub fn run(options: &Options) -> Result<(), StartError> {
        let mut daemon = Self::start(options)?;
        // What is there before any session's event is looked at is nobody's.
        daemon.tend_jobs(boot_ns());
        let mut quiet_looks = 0;
        loop {
            let taken = daemon.turn();
            quiet_looks = if taken == 0 { quiet_looks + 1 } else { 0 };
            match daemon.signals.take() {
                start::Asked::Nothing => {}
                start::Asked::Reload => daemon.reload(),
                start::Asked::Stop => break,
            }
            daemon.wait(quiet_looks > LOOKS_BEFORE_IDLE);
        }
        daemon.stop();
        Ok(())
    }

    /// Takes what waits in the ring, answers requests, writes the log. Gives how many records there were.
    fn turn(&mut self) -> u64 {
        let taken = self.pipeline.drain(&mut self.maps.events, &mut self.state, &mut self.log);
        let now = boot_ns();
        self.pipeline.expire(now, &mut self.state, &mut self.log);
        self.answer(now);
        self.look_at_policies(now);
        self.take_self_test();
        self.look_at_names();
        self.look_at_fresh_jobs(now);
        if now.saturating_sub(self.last_upkeep_ns) >= UPKEEP_NS {
            self.upkeep(now);
        }
        self.unsaved |= taken > 0 || self.state.sessions.changed || self.state.intents.changed;
        if let Err(error) = self.log.flush() {
            self.pipeline.warn_once(&error);
        }
        taken
    }

    /// Waits for records, requests or signals.
    fn wait(&mut self, idle: bool) {
        let mut millis = BUSY_MS;
        let by = if idle { wake::BY_ANY } else { wake::BY_MUCH };
        if self.maps.set_word(control::READER_WAITS, by).is_ok() && idle {
            // A record between the last look and this word woke nobody: it is found after a short wait, and the
            // next wait is long.
            millis = if self.pipeline.was_idle { IDLE_MS } else { BUSY_MS };
        }
        self.pipeline.was_idle = idle;
        let policy_due = self.watch.as_ref().and_then(watch::Watch::due_in_ms);
        for due in [policy_due, self.surroundings.due_in_ms()].into_iter().flatten() {
            millis = millis.min(due);
        }
        let ring = self.maps.ring_fd();
        let mut polled = vec![
            PollFd::new(&ring, PollFlags::IN),
            PollFd::from_borrowed_fd(self.inbox.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.preparing.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.self_tests.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.names.as_fd(), PollFlags::IN),
        ];
        polled
            .extend(self.watch.as_ref().map(|watch| PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)));
        let timeout = Timespec { tv_sec: millis / 1_000, tv_nsec: millis % 1_000 * 1_000_000 };
        // Interrupted by a signal or not: the next turn looks at everything.
        let _ = poll(&mut polled, Some(&timeout));
        // Fails only where it failed above: then nobody wakes it, and it comes after the short wait.
        let _ = self.maps.set_word(control::READER_WAITS, wake::AWAKE);
    }

    /// What is done once a second.
    fn upkeep(&mut self, now: u64) {
        self.last_upkeep_ns = now;
        self.follow_clock();
        let found = self.losses.collect(&self.maps);
        for loss in &found {
            let mut event = self.state.loss(loss.key, loss.count, loss.reason, now);
            self.log.append(&mut event);
        }
        self.unsaved |= !found.is_empty();
        self.look_at_programs(now);
        self.tend_self_tests(now);
        if found.iter().any(losses::concerns_processes) {
            self.resync(now);
        }
        if let Some(mut event) = self.pipeline.take_undecodable(&mut self.state, now) {
            self.log.append(&mut event);
        }
        self.tell_untold(now);
        self.tend_names();
        self.tell_strangers(now);
        self.tend_bindings();
        self.tend_written(now);
        self.tend_jobs(now);
        self.log.tend(self.state.host.unix_ns(now));
        if std::mem::take(&mut self.unsaved) {
            self.save_sessions();
            self.sync_log();
        }
    }

    /// The clock may have been set, or be drawn to the right time: events tell the time by it, and windows open by it.
    fn follow_clock(&mut self) {
        let since = boot_unix_ns();
        let told = self.maps.set_word(control::UNIX_OFFSET_NS, since);
        self.state.host.boot_unix_ns = since;
        if let Err(error) = told {
            self.pipeline.warn_once(&format!("windows do not follow the clock: {error}"));
        }
    }

    /// Tells of programs that the kernel skipped: what they would have seen or refused, they did not.
    fn look_at_programs(&mut self, now: u64) {
        if now.saturating_sub(self.looked_at_programs_ns) < PROGRAMS_NS {
            return;
        }
        self.looked_at_programs_ns = now;
        for (program, count) in self.losses.collect_skips(&self.programs) {
            let mut event = self.state.loss(LossKey::default(), count, "program_skipped", now);
            if let Some(loss) = &mut event.loss {
                program.clone_into(&mut loss.kind);
            }
            event.reason =
                Some(format!("the kernel skipped the program `{program}`, which was running already"));
            self.log.append(&mut event);
            self.unsaved = true;
        }
    }

    /// Makes the log survive a crash of the kernel, on a thread of its own: a busy disk must not hold up the ring.
    fn sync_log(&mut self) {
        if self.syncing.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        match self.log.unsynced() {
            Ok(unsynced) => {
                self.syncing = Some(std::thread::spawn(move || {
                    if let Err(error) = unsynced.sync() {
                        tracing::error!("{error}");
                    }
                }));
            }
            Err(error) => self.pipeline.warn_once(&error),
        }
    }

    /// After lost records on processes: what lives is in the kernel's table, and what is not there has ended.
    fn resync(&mut self, now: u64) {
        // A child whose birth still waits in the ring may have ended already.
        self.pipeline.drain_whole(&mut self.maps.events, &mut self.state, &mut self.log);
        let missing = takeover::missing(&self.maps, &self.state);
        self.pipeline.drain_whole(&mut self.maps.events, &mut self.state, &mut self.log);
        let mut out = Vec::new();
        takeover::end_missing(&self.maps, &mut self.state, &missing, now, &mut out);
        takeover::take_up_processes(&mut self.maps, &mut self.state, now, &mut out);
        for mut event in out {
            self.log.append(&mut event);
        }
    }

    fn save_sessions(&mut self) {
        self.state.sessions.changed = false;
        self.state.intents.changed = false;
        let boot_id = Arc::clone(&self.state.host.boot_id);
        // First the events, then the note that they were told: what is told twice is better than what is not.
        let saved = self.log.flush().map_err(|error| error.to_string()).and_then(|()| {
            if let Err(error) = self.losses.note(&mut self.maps) {
                self.pipeline.warn_once(&format!("losses may be told again by the next daemon: {error}"));
            }
            let (sessions, skips) = (self.state.sessions.saved(), self.losses.skips());
            let intents = self.state.intents.saved();
            let state = &self.paths.state;
            let written = saved::write(state, &boot_id, &sessions, &intents, &skips);
            written.and_then(|()| saved::write_calls(state, &boot_id, &self.state.kept_calls())).map_err(
                |error| format!("cannot save the sessions under `{}`: {error}", self.paths.state.display()),
            )
        });
        if let Err(error) = saved {
            self.unsaved = true;
            self.pipeline.warn_once(&error);
        }
    }

    /// Ends in good order.
    fn stop(&mut self) {
        self.turn();
        let now = boot_ns();
        self.pipeline.flush(&mut self.state, &mut self.log);
        self.upkeep(now);
        let reason = if self.detach_on_exit {
            "the kernel programs are removed"
        } else {
            "the kernel programs go on: what happens until the next start is kept as far as there is room"
        };
        let mut event = self.state.host_event(Kind::DaemonStop, now, Some(reason.to_owned()));
        self.log.append(&mut event);
        if let Err(error) = self.log.flush().and_then(|()| self.log.sync()) {
            tracing::error!("{error}");
        }
        self.save_sessions();
        if self.detach_on_exit {
            kernel::detach();
            // Nothing is in force any more.
            let _ = required::remove(&self.paths.run);
        }
    }
}

/// Nanoseconds since boot.
#[must_use]
pub fn boot_ns() -> u64 {
    nanoseconds(rustix::time::ClockId::Boottime)
}

/// Nanoseconds between 1970 and the boot.
fn boot_unix_ns() -> u64 {
    nanoseconds(rustix::time::ClockId::Realtime).saturating_sub(boot_ns())
}

fn nanoseconds(clock: rustix::time::ClockId) -> u64 {
    let now = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
