//! Coming up: locks, log, policy, kernel, what ran before.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use agentwatch_common::maps::control;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    low_level::pipe,
};

use super::{
    Daemon,
    bindings::Bindings,
    boot_ns, boot_unix_ns,
    facts::{self, RunningHost},
    jobs, left_behind,
    losses::Losses,
    names::Names,
    pipeline::Pipeline,
    policy::{self, Loaded, Wanted},
    prepare::Preparing,
    rules::CompileError,
    saved,
    selftest::SelfTests,
    spans::Strangers,
    surroundings::Surroundings,
    takeover,
    watch::Watch,
};
use crate::{
    agents::{AgentTable, TableError},
    attribution::{Attribution, Host},
    control::{self as api, RunError, RunLock, policy::PolicyOrigin},
    event::{Kind, time::format_time},
    exit,
    kernel::{
        self, Abilities, Kernel, KernelError,
        maps::{Boxed, Maps},
    },
    log::{Limits, Log, LogError},
    memory,
    paths::Paths,
    policy::{Mode, Problems},
    written,
};

/// How the daemon is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its folders.
    pub paths: Paths,
    /// The policy, or none.
    pub policy: Option<PathBuf>,
    /// No agent gets a stricter mode than this.
    pub mode: Option<Mode>,
    /// Remove the kernel programs at the end.
    pub detach_on_exit: bool,
    /// Do not start where the self-test does not prove what the policy rests on.
    pub strict: bool,
    /// Size and age of the log.
    pub limits: Limits,
    /// Where spans are taken, if anywhere: an address of the loopback device.
    pub otlp: Option<SocketAddr>,
}

/// Why the daemon does not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another daemon, or the folder of the sockets.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The kernel or the privileges.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The policy.
    #[error("{0}")]
    Policy(Problems),
    /// The policy that was applied last.
    #[error(
        "cannot read `{}`, the policy that was applied last ({source}): remove it to start without it",
        path.display()
    )]
    Applied {
        /// Where it is kept.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What the self-test did not prove.
    #[error(
        "what the policy says is not enforced here, and `--strict` asks for that: {0}. `agentwatch doctor` tells more; \
         without `--strict` the daemon runs all the same"
    )]
    NotProved(String),
    /// The rules.
    #[error(transparent)]
    Rules(#[from] CompileError),
    /// The agents' patterns.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Something of the host.
    #[error("cannot read `{path}`: {source}")]
    Host {
        /// What.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The receiver of spans.
    #[error("cannot take spans at {address}: {source}; `--otlp` says where")]
    Otlp {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Signals, threads, descriptors.
    #[error("cannot set up the daemon: {0}")]
    Io(#[from] io::Error),
}

impl StartError {
    /// The exit code of the contract.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Run(error) => error.exit_code(),
            Self::Kernel(error) => error.exit_code(),
            Self::NotProved(_) => exit::NOT_ALLOWED,
            Self::Policy(_) | Self::Applied { .. } | Self::Table(_) | Self::Rules(_) => exit::BAD_POLICY,
            Self::Log(error) => error.exit_code(),
            Self::Host { .. } | Self::Otlp { .. } | Self::Io(_) => exit::FAILED,
        }
    }
}

/// What a signal asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    Reload,
    Stop,
}

/// Signals, as something that can be polled.
#[derive(Debug)]
pub(super) struct Signals {
    bell: UnixStream,
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let (bell, sender) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        let (stop, reload) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for (signal, flag) in [(SIGTERM, &stop), (SIGINT, &stop), (SIGHUP, &reload)] {
            signal_hook::flag::register(signal, Arc::clone(flag))?;
            pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self { bell, stop, reload })
    }

    /// What was asked since the last call.
    pub(super) fn take(&self) -> Asked {
        let mut rung = [0; 64];
        while matches!(io::Read::read(&mut &self.bell, &mut rung), Ok(1..)) {}
        if self.stop.load(Ordering::Relaxed) {
            Asked::Stop
        } else if self.reload.swap(false, Ordering::Relaxed) {
            Asked::Reload
        } else {
            Asked::Nothing
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// What a daemon has before it touches the kernel.
struct ComingUp {
    wanted: Wanted,
    watch: Option<Watch>,
    surroundings: Surroundings,
    names: Names,
    loaded: Loaded,
    /// Why this policy, for the log.
    why: &'static str,
    lock: RunLock,
    log: Log,
    spans: Option<TcpListener>,
}

impl Daemon {
    /// Comes up: everything that can fail comes before the kernel is touched, but for the kernel itself.
    pub(super) fn start(options: &Options) -> Result<Self, StartError> {
        memory::keep_large_pieces_apart();
        // First: without root the state folder cannot be read, and that would be no help.
        kernel::check_host()?;
        let names = Names::new(Names::follower()?);
        let wanted = Wanted {
            path: options.policy.clone(),
            at_most: options.mode,
            paths: options.paths.clone(),
            names: names.orders().clone(),
        };
        // Before they are read, so that no change is missed.
        let watch = options.policy.as_deref().and_then(|path| {
            let unwatched =
                |error| tracing::error!(%error, "changes of the policy's files are not noticed: use SIGHUP");
            Watch::new(path).map_err(unwatched).ok()
        });
        let surroundings = Surroundings::new()?;
        let (loaded, why) = Loaded::at_start(&wanted, &options.paths.state)?;
        let lock = RunLock::take(&options.paths)?;
        let (log, _recovery) = Log::open(&options.paths.state, options.limits)?;
        let spans = options.otlp.map(listen_to_spans).transpose()?;
        let kernel = kernel::attach()?;
        memory::release();
        let began_here = !kernel.taken_over;
        let up = ComingUp { wanted, watch, surroundings, names, loaded, why, lock, log, spans };
        Self::begin(options, up, kernel).inspect_err(|_| {
            // Nobody would read what programs without a daemon tell.
            if began_here {
                kernel::detach();
            }
        })
    }

    /// Goes on with the kernel's side in place.
    fn begin(options: &Options, up: ComingUp, kernel: Kernel) -> Result<Self, StartError> {
        let ComingUp { wanted, watch, surroundings, mut names, loaded, why, lock, mut log, spans } = up;
        let Kernel { mut maps, abilities, taken_over, lock: host_lock } = kernel;
        let signals = Signals::new()?;
        let host = host()?;
        let facts = Box::new(RunningHost::new(maps.sessions_again()?));
        let mut state = Attribution::new(host, Arc::clone(&loaded.table), facts);
        let earlier = saved::read(&options.paths.state, &state.host.boot_id);
        let losses = Losses::after(&maps, earlier.skips.filter(|_| taken_over));
        let lost = state.intents.restore(earlier.intents, &loaded.policy);
        if lost > 0 {
            tracing::warn!(
                "{lost} intents that an earlier daemon kept cannot be read, and do not count any more"
            );
        }
        configure(&mut maps, &loaded.table)?;
        name_daemon(&mut maps)?;
        let mut rule_maps = maps.rules()?;
        let (policy, places) = (Arc::clone(&loaded.policy), Arc::clone(&loaded.places));
        let (modes, needs) = (loaded.modes(), loaded.needs.clone());
        let in_force = loaded.bring_into_force(
            &mut names,
            &mut maps,
            &mut rule_maps,
            &mut state,
            &abilities,
            &wanted,
        )?;

        if let Err(error) = policy::require_hooks(&options.paths.run, &policy) {
            tracing::error!("{error}");
        }

        // Before what waits in the ring is read, which may tell of the use of these.
        let kept = left_behind::put_back(&mut maps, &mut state, &options.paths.state);
        state.jobs = saved::read_jobs(&options.paths.state).unwrap_or_default();
        let bindings = Bindings::take_up(&maps)?;
        bindings.numbers().into_iter().for_each(|number| state.intents.go_on_behind(number));
        let programs = maps.programs();
        let self_tests = SelfTests::begin(&maps, &options.paths, needs, in_force.version)?;
        if options.strict {
            self_tests.strictly()?;
        }
        let now = boot_ns();
        let since = format_time(state.host.unix_ns(now));
        log.append(&mut state.host_event(Kind::DaemonStart, now, Some(describe(&abilities, taken_over))));
        if in_force.origin != PolicyOrigin::None {
            log.append(&mut policy::applied_event(&state, &in_force, now, why));
        }
        if let Some(mut event) = self_tests.event(|kind, reason| state.host_event(kind, now, reason)) {
            log.append(&mut event);
        }
        let (mailbox, inbox) = api::mailbox()?;
        let server = api::serve(lock, mailbox, spans)?;
        if options.otlp.is_some() {
            // What was done before is not known whole.
            state.calls.keep_times(state.host.unix_ns(now));
        }
        // In the order in which things happened: what waits in the ring, then what is there now.
        let mut pipeline = Pipeline::default();
        state.take_over(earlier.sessions);
        state.take_over_calls(saved::read_calls(&options.paths.state, &state.host.boot_id));
        pipeline.drain_whole(&mut maps.events, &mut state, &mut log);
        let mut out = Vec::new();
        let numbers = takeover::take_up(&mut maps, &mut state, now, &mut out);
        for event in &mut out {
            log.append(event);
        }
        // Only now, so that whoever sees the beginning in the log knows that all is in place. No error ends the daemon
        // from here on: what was taken from the ring waits in memory.
        if let Err(error) = log.flush() {
            pipeline.warn_once(&error);
        }

        memory::release();
        let mut daemon = Self {
            paths: options.paths.clone(),
            _host_lock: host_lock,
            maps,
            rule_maps,
            abilities,
            bindings,
            state,
            pipeline,
            log,
            losses,
            programs,
            looked_at_programs_ns: 0,
            looked_at_untold_ns: 0,
            numbers,
            inbox,
            _server: server,
            otlp: options.otlp,
            strangers: Strangers::default(),
            signals,
            since,
            kernel_release: kernel_release()?,
            detach_on_exit: options.detach_on_exit,
            preparing: Preparing::start(wanted.clone(), options.paths.state.clone())?,
            names,
            watch,
            wanted,
            in_force,
            self_tests,
            kept,
            looks: jobs::Looks::default(),
            modes,
            policy,
            places,
            surroundings,
            last_upkeep_ns: now,
            unsaved: true,
            syncing: None,
        };
        daemon.tend_bindings();
        Ok(daemon)
    }
}

fn listen_to_spans(address: SocketAddr) -> Result<TcpListener, StartError> {
    api::listen_to_spans(address).map_err(|source| StartError::Otlp { address, source })
}

/// Says to the kernel which process the daemon is, which sessions may not signal.
pub(super) fn name_daemon(maps: &mut Maps) -> Result<(), StartError> {
    let pid = std::process::id();
    let seen = facts::process(pid).ok_or_else(|| io::Error::other("`/proc` does not show this process"))?;
    maps.set_word(control::DAEMON_PID, pid.into())?;
    maps.set_word(control::DAEMON_START_TICKS, seen.start_ticks)?;
    Ok(())
}

/// Hands the patterns to the kernel.
pub(super) fn configure(maps: &mut Maps, table: &AgentTable) -> Result<(), KernelError> {
    let matcher = table.matcher();
    let mut automaton = Boxed::empty();
    automaton.class_count = matcher.class_count;
    automaton.start_program = matcher.start_program;
    automaton.start_command = matcher.start_command;
    automaton.start_cgroup = matcher.start_cgroup;
    automaton.class = matcher.classes;
    for (slot, value) in automaton.accept.iter_mut().zip(&matcher.accept) {
        *slot = *value;
    }
    for (slot, value) in automaton.next.iter_mut().zip(&matcher.table) {
        *slot = *value;
    }
    maps.set_agent_numbers((0..).zip(table.agents()).map(|(index, _)| table.number_of(index)))?;
    maps.set_automaton(&automaton)?;
    maps.set_sources(written::sources())?;
    let old: Vec<u32> = maps.users.keys().flatten().collect();
    for user in old {
        let _ = maps.users.remove(&user);
    }
    for (user, agent) in table.users() {
        maps.users.insert(user, agent, 0).map_err(|source| KernelError::Map { name: "USERS", source })?;
    }
    maps.set_word(control::MATCH_USERS, u64::from(table.users().len() > 0))?;
    maps.set_word(control::MATCH_CGROUPS, u64::from(matcher.start_cgroup != 0))
}

fn describe(abilities: &Abilities, taken_over: bool) -> String {
    let lacking: Vec<String> = abilities
        .0
        .iter()
        .filter_map(|ability| Some(format!("{}: {}", ability.name, ability.reason.as_deref()?)))
        .collect();
    let begin = if taken_over {
        "took over the kernel programs of an earlier daemon"
    } else {
        "attached to the kernel"
    };
    if lacking.is_empty() {
        format!("{begin}; everything can be seen here")
    } else {
        format!("{begin}; not everything can be seen here: {}", lacking.join("; "))
    }
}

fn host() -> Result<Host, StartError> {
    Ok(Host {
        name: line("/proc/sys/kernel/hostname")?,
        boot_id: line("/proc/sys/kernel/random/boot_id")?,
        boot_unix_ns: boot_unix_ns(),
    })
}

fn kernel_release() -> Result<Arc<str>, StartError> {
    line("/proc/sys/kernel/osrelease")
}

fn line(path: &'static str) -> Result<Arc<str>, StartError> {
    let text = fs::read_to_string(path).map_err(|source| StartError::Host { path, source })?;
    Ok(Arc::from(text.trim()))
}
