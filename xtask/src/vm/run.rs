//! One run: assemble a machine, boot it, carry its output, give its exit status.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::kernel::Kernel;
use super::qemu::{Disk, Ends, Machine, Qemu, forward};
use super::{VmSpec, initramfs, rootfs, share};
use crate::cache::{self, Lock};
use crate::cmd::{self, say};
use crate::job::{Job, MODULES_DISK, PROGRAMS_DISK, ROOT_DISK};
use crate::paths;
use crate::setup;

/// The exit status of a run that took too long, as of `timeout`.
pub const TIMED_OUT: i32 = 124;
/// The exit status of a run whose output nobody wants to read: the one of a death by SIGPIPE.
const UNREAD: i32 = 141;
/// What a guest whose time is up gets to kill the command and to send what is in `/out`.
const LAST_CHANCE: Duration = Duration::from_secs(30);
/// A younger folder of a run may not be locked yet.
const UNLOCKED_AT_FIRST: Duration = Duration::from_secs(60);

/// A file in each run's folder, locked while the run lasts.
const ALIVE: &str = "alive";

/// How one boot ended.
#[derive(Debug)]
enum Ending {
    Exited(i32),
    TimedOut,
    /// Nobody reads our output any more.
    Unread,
    /// The guest ended without a status; with what it said last.
    Died {
        ready: bool,
        reason: String,
    },
}

/// A machine ready to boot, with its files in a folder of its own.
struct Assembly {
    folder: TempDir,
    _alive: Lock,
    kernel: Kernel,
    disks: Vec<Disk>,
}

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Captured {
    /// Its exit status.
    pub code: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// Boots a guest, runs the command, and gives its exit status. Its output becomes ours, live.
///
/// # Errors
/// If the machine cannot be made, or dies.
pub fn run(spec: &VmSpec) -> Result<i32> {
    run_into(spec, &Sinks::own)
}

/// As [`run`], but gives the command's output too.
///
/// # Errors
/// As [`run`].
pub fn capture(spec: &VmSpec) -> Result<Captured> {
    let (stdout, stderr) = (Memory::default(), Memory::default());
    let sinks = || Sinks { stdout: Box::new(stdout.clone()), stderr: Box::new(stderr.clone()) };
    let code = run_into(spec, &sinks)?;
    Ok(Captured { code, stdout: stdout.take(), stderr: stderr.take() })
}

/// Where a command's output goes.
pub struct Sinks {
    /// Its standard output.
    pub stdout: Box<dyn io::Write + Send>,
    /// Its standard error.
    pub stderr: Box<dyn io::Write + Send>,
}

impl Sinks {
    /// This program's own output.
    #[must_use]
    pub fn own() -> Self {
        Self { stdout: Box::new(io::stdout()), stderr: Box::new(io::stderr()) }
    }
}

/// A sink that can be read afterwards.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As [`run`], with the command's output put elsewhere. `sinks` is asked once for each boot.
///
/// # Errors
/// As [`run`].
pub fn run_into(spec: &VmSpec, sinks: &dyn Fn() -> Sinks) -> Result<i32> {
    run_counted(spec, sinks).map(|(code, _)| code)
}

/// As [`run_into`]; gives also how many boots it took: two where the first guest died before it was ready.
///
/// # Errors
/// As [`run`].
pub fn run_counted(spec: &VmSpec, sinks: &dyn Fn() -> Sinks) -> Result<(i32, u32)> {
    spec.check()?;
    setup::for_vm()?;
    let assembly = assemble(spec)?;
    let (ending, boots) = match boot(spec, &assembly, sinks())? {
        Ending::Died { ready: false, reason } => {
            say(&format!("vm: {} died before it was ready ({reason}); booting once more", spec.kernel));
            (boot(spec, &assembly, sinks())?, 2)
        }
        other => (other, 1),
    };
    Ok((exit_status(spec, ending, &assembly)?, boots))
}

/// The status to end with; an error for a guest that died.
fn exit_status(spec: &VmSpec, ending: Ending, assembly: &Assembly) -> Result<i32> {
    match ending {
        Ending::Exited(code) => Ok(code),
        Ending::Unread => Ok(UNREAD),
        Ending::TimedOut => {
            let seconds = spec.timeout.as_secs();
            say(&format!(
                "vm: the guest was killed, since it had not ended after {seconds} s; --timeout gives it more"
            ));
            Ok(TIMED_OUT)
        }
        Ending::Died { reason, .. } => {
            let log = keep_log(&spec.kernel, assembly.folder.path())?;
            let text = fs::read(&log).unwrap_or_default();
            let tail = cmd::last_lines(&String::from_utf8_lossy(&text), 40);
            bail!(
                "the {} guest died: {reason}. Its last messages, all of which are in {}:\n{tail}",
                spec.kernel,
                log.display()
            )
        }
    }
}

fn assemble(spec: &VmSpec) -> Result<Assembly> {
    let runs = paths::cache_dir("runs")?;
    remove_left_overs(&runs);
    let folder = tempfile::Builder::new()
        .prefix("vm-")
        .tempdir_in(&runs)
        .context("cannot make a folder for the run")?;
    let alive = Lock::take(&folder.path().join(ALIVE), "run")?;
    let kernel = Kernel::get(&spec.kernel, spec.refresh)?;
    let root = rootfs::get(&spec.packages, spec.refresh)?;
    let mut job = Job {
        release: kernel.release.clone(),
        wants_out: spec.out.is_some(),
        has_programs: spec.agentwatch.is_some(),
        shares: Vec::new(),
        command: spec.command.clone(),
    };
    let mut disks = vec![disk(ROOT_DISK, root, true), disk(MODULES_DISK, kernel.modules(), false)];
    if let Some(program) = &spec.agentwatch {
        let image = folder.path().join("programs.squashfs");
        super::kernel::squash(program, &image)?;
        disks.push(disk(PROGRAMS_DISK, image, false));
    }
    for (number, shared) in spec.shares.iter().enumerate() {
        let (serial, image) =
            (format!("share{number}"), folder.path().join(format!("share{number}.squashfs")));
        share::image(shared, &image)?;
        job.shares.push((serial.clone(), share::name(shared)?));
        disks.push(disk(&serial, image, false));
    }
    initramfs::write(&kernel, &job, &folder.path().join("initramfs"))?;
    Ok(Assembly { folder, _alive: alive, kernel, disks })
}

fn disk(serial: &str, image: PathBuf, scratch: bool) -> Disk {
    Disk { serial: serial.to_owned(), image, scratch }
}

fn boot(spec: &VmSpec, assembly: &Assembly, sinks: Sinks) -> Result<Ending> {
    let start = Instant::now();
    let folder = assembly.folder.path();
    let (qemu, ends) = Qemu::start(&Machine {
        kernel: &assembly.kernel.image(),
        initramfs: &folder.join("initramfs"),
        disks: &assembly.disks,
        cpus: spec.cpus,
        memory_mb: spec.memory_mb,
        icount: spec.icount,
        console: &folder.join("console.log"),
        messages: &folder.join("qemu.log"),
    })?;
    let Ends { stdout, stderr, out, control } = ends;
    let requests = control.try_clone().context("cannot duplicate a socket")?;
    let (sender, events) = channel();
    let carriers = [
        carry(stdout, sinks.stdout, sender.clone()),
        carry(stderr, sinks.stderr, sender.clone()),
        spawn(move || listen(control, &sender)),
    ];
    let mut follower = Follower {
        spec,
        start,
        out: Some(out.into()),
        extraction: None,
        ready: false,
        late: false,
        requests,
    };
    let ending = follower.follow(&events)?;
    drop(qemu);
    for carrier in carriers {
        // They end with QEMU, and do not panic.
        let _ = carrier.join();
    }
    follower.finish_extraction()?;
    Ok(ending)
}

/// What happens to a guest, as seen from outside.
enum Event {
    /// A line through the control port.
    Said(String),
    /// QEMU has ended, or the guest no longer has its control port.
    Gone,
    /// Our own output is closed.
    Unread,
}

fn carry(source: UnixStream, sink: impl io::Write + Send + 'static, events: Sender<Event>) -> JoinHandle<()> {
    spawn(move || {
        if forward(source, sink).is_err() {
            // Nobody listens at the end of the run, and nobody needs to.
            let _ = events.send(Event::Unread);
        }
    })
}

fn listen(control: UnixStream, events: &Sender<Event>) {
    for line in BufReader::new(control).lines().map_while(Result::ok) {
        let _ = events.send(Event::Said(line));
    }
    let _ = events.send(Event::Gone);
}

/// Follows a guest from its start to its end.
struct Follower<'a> {
    spec: &'a VmSpec,
    start: Instant,
    out: Option<OwnedFd>,
    extraction: Option<Child>,
    ready: bool,
    /// Its time is up, and it has been told.
    late: bool,
    requests: UnixStream,
}

impl Follower<'_> {
    fn follow(&mut self, events: &Receiver<Event>) -> Result<Ending> {
        loop {
            let patience = if self.late { self.spec.timeout + LAST_CHANCE } else { self.spec.timeout };
            let ending = match events.recv_timeout(patience.saturating_sub(self.start.elapsed())) {
                Ok(Event::Said(line)) => self.hear(&line)?,
                Ok(Event::Unread) => Some(Ending::Unread),
                Err(RecvTimeoutError::Timeout) => self.hurry(),
                Ok(Event::Gone) | Err(RecvTimeoutError::Disconnected) => {
                    Some(self.died("it ended without giving an exit status"))
                }
            };
            match ending {
                Some(_) if self.late => return Ok(Ending::TimedOut),
                Some(ending) => return Ok(ending),
                None => (),
            }
        }
    }

    fn hear(&mut self, line: &str) -> Result<Option<Ending>> {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("ready", _) => {
                self.ready = true;
                say(&format!(
                    "vm: {} ready in {:.1} s",
                    self.spec.kernel,
                    self.start.elapsed().as_secs_f64()
                ));
            }
            ("sending", _) => self.start_extraction()?,
            ("exit", code) => {
                return Ok(Some(Ending::Exited(code.parse().context("the guest gave an odd exit status")?)));
            }
            ("failed", reason) => return Ok(Some(self.died(reason))),
            _ => return Ok(Some(self.died(&format!("it said `{line}`, which nobody understands")))),
        }
        Ok(None)
    }

    /// The time is up. A guest that is ready may still send what is in `/out`.
    fn hurry(&mut self) -> Option<Ending> {
        let told = self.ready && !self.late && self.requests.write_all(b"kill\n").is_ok();
        self.late = true;
        if told { None } else { Some(Ending::TimedOut) }
    }

    fn died(&self, reason: &str) -> Ending {
        Ending::Died { ready: self.ready, reason: reason.to_owned() }
    }

    fn start_extraction(&mut self) -> Result<()> {
        let (Some(folder), Some(stream)) = (&self.spec.out, self.out.take()) else { return Ok(()) };
        paths::make_dir(folder)?;
        let mut tar = cmd::command("tar")?;
        tar.arg("-C").arg(folder).args(["--no-same-owner", "-xf", "-"]).stdin(stream);
        self.extraction =
            Some(tar.spawn().context("cannot start tar to unpack what the guest left in /out")?);
        Ok(())
    }

    fn finish_extraction(&mut self) -> Result<()> {
        let Some(mut tar) = self.extraction.take() else { return Ok(()) };
        let status = tar.wait().context("cannot wait for tar")?;
        if !status.success() {
            bail!("unpacking what the guest left in /out failed: tar ended with {status}");
        }
        Ok(())
    }
}

/// Keeps the console's and QEMU's messages of a guest that died.
fn keep_log(series: &str, folder: &Path) -> Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let log = paths::cache_dir("logs")?.join(format!("{series}-{now}.log"));
    let mut text = fs::read(folder.join("qemu.log")).unwrap_or_default();
    text.extend(fs::read(folder.join("console.log")).unwrap_or_default());
    fs::write(&log, text).with_context(|| format!("cannot write {}", log.display()))?;
    Ok(log)
}

/// Removes the folders of runs that were killed: nobody holds their lock.
fn remove_left_overs(runs: &Path) {
    for entry in fs::read_dir(runs).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|when| when.elapsed().ok());
        let alive = || fs::File::open(entry.path().join(ALIVE)).is_ok_and(|file| file.try_lock().is_err());
        if age.is_some_and(|age| age > UNLOCKED_AT_FIRST) && !alive() {
            // The next run tries again.
            let _ = cache::remove(&entry.path());
        }
    }
}
