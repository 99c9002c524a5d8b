//! The daemon under test, and sessions in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agentwatch::event::{Event, Kind};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::log::LogFollower;
use crate::session::{ActRun, SessionRun, act_words, contents, truth, wait, work_dir};
use crate::watchdog::{self, Watched};

/// How long anything may take: an emulated machine with one busy CPU is slow.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The policy of the tests: an agent that exists only by `agentwatch exec`, and one for each way to be found.
/// All in one, since the start of a daemon takes most of a minute on an emulated machine.
pub const POLICY: &str = "\
version: 1
agents:
  test: {owner: tests@example.com}
  inner: {owner: inner@example.com, match: [{exec: ['**/aw-inner']}]}
  by-program: {owner: tests@example.com, match: [{exec: ['**/aw-matched']}]}
  by-command: {owner: tests@example.com, match: [{run: ['aw-act *matched-by-run*']}]}
  by-user: {owner: tests@example.com, match: [{user: [nobody]}]}
  by-cgroup: {owner: tests@example.com, match: [{cgroup: ['/aw-live-*']}]}
  before: {owner: tests@example.com, match: [{exec: ['**/aw-before']}]}
  strict: {owner: tests@example.com, mode: enforce, guards: {delegate: [/run/aw-broker.sock, 'unix:@aw-broker']}}
  soft: {owner: tests@example.com, mode: recommend}
  open:
    owner: tests@example.com
    mode: enforce
    guards: {ptrace: off, signal: off, mount: off, namespace: off, module: off, bpf: off, raw-device: off,
             raw-socket: off, delegate: off}
rules:
  - name: protected
    agents: [strict, soft]
    deny: {read: ['/srv/aw-prod'], write: ['/srv/aw-prod'], delete: ['/srv/aw-prod']}
    message: ask tests@example.com
  - name: programs
    agents: [strict, soft]
    deny: {exec: ['/srv/aw-bin/*']}
  - name: commands
    agents: [strict, soft]
    deny: {run: ['touch *forbidden*']}
  - name: database
    agents: [strict, soft]
    deny: {connect: ['127.0.0.1:54321', '/srv/aw-run/.s.PGSQL.5432'], listen: ['*:54322']}
  - name: linked
    agents: [strict, soft]
    deny: {exec: ['/srv/aw-links/drop*'], connect: ['/srv/aw-links/run/x.sock'], read: ['/srv/aw-links/open/secret']}
  - name: everywhere
    agents: [open]
    deny: {delete: ['/srv/aw-prod'], read: ['/srv/aw-prod/f']}
  - name: sockets
    agents: [strict, soft]
    deny: {connect: ['unix:@aw-prod*', 'vsock:*:54323-54324'], listen: ['unix:@aw-own*', 'vsock:*:54325']}
  - name: watched
    agents: [strict, soft]
    log: {read: ['/etc/hostname']}
";

/// One daemon a machine: whoever has it holds this.
static MACHINE: Mutex<Option<Daemon>> = Mutex::new(None);

/// The daemon that most tests share, since its start is slow on an emulated machine.
pub struct Shared {
    machine: MutexGuard<'static, Option<Daemon>>,
    /// What the test leaves in the kernel is not for others.
    removes: bool,
    _watched: Watched,
}

impl Shared {
    /// Runs `test` with the shared daemon, which is started where it does not run.
    ///
    /// # Errors
    /// If it does not start, and whatever `test` gives. A daemon that then does not answer is left.
    pub fn with(test: impl FnOnce(&mut Daemon) -> Result<()>) -> Result<()> {
        let mut machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        let _watched = watchdog::watch();
        let mut daemon = match machine.take() {
            Some(daemon) => daemon,
            None => Daemon::start(&Place::new()?)?,
        };
        let result = test(&mut daemon).map_err(|error| error.context(daemon.said()));
        if result.is_ok() || daemon.sentinel().is_ok() {
            *machine = Some(daemon);
        }
        result
    }

    /// Takes the machine for a test with daemons of its own, which may take over the kernel programs of others: the
    /// kernel checks them for as long as many tests take.
    ///
    /// # Errors
    /// If the shared daemon does not stop as it must.
    pub fn apart() -> Result<Self> {
        let mut machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = watchdog::watch();
        if let Some(daemon) = machine.take() {
            daemon.stop()?;
        }
        Ok(Self { machine, removes: false, _watched: watched })
    }

    /// The same for a test that begins with nothing of agentwatch in the kernel, and leaves nothing there.
    ///
    /// # Errors
    /// As [`Self::apart`], and if its programs cannot be removed.
    pub fn none() -> Result<Self> {
        let mut machine = Self::apart()?;
        remove_programs()?;
        machine.removes = true;
        Ok(machine)
    }

    /// Whether no shared daemon runs: always, as long as this value lives.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.machine.is_none()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.removes
            && let Err(error) = remove_programs()
        {
            eprintln!("{error:#}");
        }
    }
}

/// Where the kernel's side is pinned.
pub const PINS: &str = "/sys/fs/bpf/agentwatch";

/// Removes the kernel's side of agentwatch, as the manual says.
fn remove_programs() -> Result<()> {
    match std::fs::remove_dir_all(PINS) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("cannot remove the pins"),
        _ => Ok(()),
    }
}

/// Folders of a daemon: they outlive it, so that another one can follow.
#[derive(Clone)]
pub struct Place {
    folder: Arc<TempDir>,
}

impl Place {
    /// Fresh folders with the tests' policy.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn new() -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("agentwatch-").tempdir().context("no temporary folder")?;
        // Sessions of other users ask the daemon too.
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), all).context("cannot open the folder to all")?;
        let place = Self { folder: Arc::new(folder) };
        std::fs::write(place.policy(), POLICY).context("cannot write the policy")?;
        Ok(place)
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The policy file.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.folder.path().join("policy.yaml")
    }

    /// The folder of the sockets.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// `agentwatch` with these folders.
    pub fn agentwatch(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new("agentwatch");
        command
            .env("AGENTWATCH_STATE", self.state())
            .env("AGENTWATCH_RUN", self.run_dir())
            .env("NO_COLOR", "1")
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// `agentwatch run` with these folders. Its kernel programs stay when it ends.
    #[must_use]
    pub fn run(&self) -> Command {
        let mut command = self.agentwatch(["run"]);
        command.arg("--policy").arg(self.policy());
        command
    }
}

/// A running daemon.
pub struct Daemon {
    place: Place,
    child: Child,
    messages: File,
    log: LogFollower,
}

impl Daemon {
    /// Starts a daemon and waits until its log says so.
    ///
    /// # Errors
    /// If it ends before, or does not come.
    pub fn start(place: &Place) -> Result<Self> {
        Self::start_by(place, place.run())
    }

    /// Starts a daemon by this command, which [`Place::run`] gave, and waits until its log says so.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_by(place: &Place, mut command: Command) -> Result<Self> {
        // agentwatch learns the structures of a module when it attaches, and `doctor` says what it lacks without.
        let module =
            Command::new("modprobe").arg("vsock_loopback").status().context("cannot start modprobe")?;
        ensure!(module.success(), "the module vsock_loopback cannot be loaded: {module}");
        let log = LogFollower::new(&place.state())?;
        let before = log.last_seq()?;
        let messages = tempfile::tempfile().context("no temporary file")?;
        let output = || messages.try_clone().context("no descriptor is left");
        let child = command.stdout(output()?).stderr(output()?).spawn();
        let child = child.context("cannot start `agentwatch run`: is agentwatch on PATH?")?;
        let mut daemon = Self { place: place.clone(), child, messages, log };
        daemon.wait_for_start(before).with_context(|| daemon.said())?;
        Ok(daemon)
    }

    fn wait_for_start(&mut self, before: Option<u64>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // What is damaged the daemon repairs first: until then nothing can be said of what is there.
            let mut log = LogFollower::new(&self.place.state())?;
            let is_start = |event: &Event| event.kind == Kind::DaemonStart && Some(event.seq) > before;
            if std::iter::from_fn(|| log.next_event().ok().flatten()).any(|event| is_start(&event)) {
                self.log = log;
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the daemon did not start within {PATIENCE:?}");
            if let Some(status) = self.child.try_wait().context("cannot ask for the daemon")? {
                bail!("the daemon ended with {status} at its start");
            }
            // Short turns, to notice soon that the daemon has ended.
            log.wait(Duration::from_millis(200))?;
        }
    }

    /// Its folders.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that the daemon has printed, as context of an error.
    #[must_use]
    pub fn said(&mut self) -> String {
        let mut text = String::new();
        let read =
            self.messages.seek(SeekFrom::Start(0)).and_then(|_| self.messages.read_to_string(&mut text));
        match read {
            Ok(_) => format!("the daemon said:\n{text}"),
            Err(error) => format!("what the daemon said cannot be read: {error}"),
        }
    }

    /// Follows the log, from where the last call of any of these ended, until `take` has seen enough.
    ///
    /// # Errors
    /// As [`LogFollower::until`].
    pub fn until(&mut self, what: &str, take: impl FnMut(Event) -> Result<bool>) -> Result<()> {
        self.log.until(what, PATIENCE, take)
    }

    /// Waits for an event that `filter` accepts, and gives it with all before it.
    ///
    /// # Errors
    /// If it does not come in time.
    pub fn wait_for(&mut self, what: &str, filter: impl Fn(&Event) -> bool) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        self.until(what, |event| {
            let found = filter(&event);
            events.push(event);
            Ok(found)
        })?;
        Ok(events)
    }

    /// Runs a command as a session of the agent `test` and gives all events from its start to the session's
    /// end, those of others among them.
    ///
    /// # Errors
    /// If it cannot be run, or the end of its session does not come.
    pub fn session(&mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<SessionRun> {
        let command = self.exec(words);
        self.run_session(command)
    }

    /// The command that [`Self::session`] runs.
    pub fn exec(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        self.exec_as("test", words)
    }

    /// A command that becomes a session of any agent.
    pub fn exec_as(&self, agent: &str, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = self.place.agentwatch(["exec", "--agent", agent, "--"]);
        command.args(words);
        command
    }

    /// Runs a command that becomes a session, as [`Self::session`].
    ///
    /// # Errors
    /// As [`Self::session`].
    pub fn run_session(&mut self, mut command: Command) -> Result<SessionRun> {
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let mut child = command.spawn().context("cannot start `agentwatch exec`")?;
        let pid = child.id();
        let status = wait(&mut child)?;
        let said = || -> Result<String> { Ok(String::from_utf8_lossy(&contents(&stderr)?).into_owned()) };
        let (session, events) = self.session_of(pid).with_context(|| said().unwrap_or_default())?;
        Ok(SessionRun { session, pid, status, stdout: contents(&stdout)?, stderr: said()?, events })
    }

    /// Follows the log to the end of the session whose first process was `pid`.
    fn session_of(&mut self, pid: u32) -> Result<(String, Vec<Event>)> {
        let mut session = None;
        let mut events = Vec::new();
        self.until("end of the session", |event| {
            let by_us = event.process.as_ref().is_some_and(|process| process.pid == pid);
            if session.is_none() && by_us && !event.session.is_empty() {
                session = Some(event.session.to_string());
            }
            let ended = event.kind == Kind::SessionEnd && session.as_deref() == Some(&*event.session);
            events.push(event);
            Ok(ended)
        })?;
        Ok((session.context("the session has no name")?, events))
    }

    /// Runs the actor as a session in a fresh folder; it must succeed.
    ///
    /// # Errors
    /// As [`Self::session`], and if the actor fails.
    pub fn act(&mut self, args: &[&str]) -> Result<ActRun> {
        let run = self.act_ending(args)?;
        ensure!(run.status.success(), "aw-act {args:?} ended with {}: {}", run.status, run.stderr);
        Ok(run)
    }

    /// As [`Self::act`], however the actor ends.
    ///
    /// # Errors
    /// As [`Self::session`], and if the actor gives no list.
    pub fn act_ending(&mut self, args: &[&str]) -> Result<ActRun> {
        let dir = work_dir()?;
        let run = self.session(act_words(dir.path(), args))?;
        let truth = truth(&run.stdout).with_context(|| format!("aw-act {args:?}: {}", run.stderr))?;
        Ok(ActRun { run, truth, dir })
    }

    /// Runs a short session and gives all events up to its end: whatever happened before has been seen then.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub fn sentinel(&mut self) -> Result<SessionRun> {
        self.session(["aw-act", "noop"])
    }

    /// Ends the daemon as an administrator does, and checks that it goes in order.
    ///
    /// # Errors
    /// If it does not end, or not with 0.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = wait(&mut self.child)?;
        ensure!(status.success(), "the daemon ended with {status} on SIGTERM; {}", self.said());
        self.log.until("daemon.stop", PATIENCE, |event| Ok(event.kind == Kind::DaemonStop))
    }

    /// Kills the daemon without a word.
    ///
    /// # Errors
    /// If that fails.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        let status = wait(&mut self.child)?;
        ensure!(
            status.signal() == Some(Signal::KILL.as_raw()),
            "the daemon ended with {status}, not by SIGKILL"
        );
        Ok(())
    }

    /// Asks the daemon to read its policy again.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn reload(&self) -> Result<()> {
        self.signal(Signal::HUP)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no such process id")?;
        rustix::process::kill_process(pid, signal).context("cannot signal the daemon")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Only after a failed test: the others stop their daemon, which leaves nothing to do here.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
