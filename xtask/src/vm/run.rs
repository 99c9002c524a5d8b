//! One run: assemble a machine, boot it, carry its output, give its exit status.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::kernel::Kernel;
use super::qemu::{Disk, Ends, Machine, Qemu, forward};
use super::{VmSpec, initramfs, rootfs, share};
use crate::cache;
use crate::cmd::{self, say};
use crate::job::{Job, MODULES_DISK, PROGRAMS_DISK, ROOT_DISK};
use crate::paths;
use crate::setup;

/// The exit status of a run that took too long, as of `timeout`.
pub const TIMED_OUT: i32 = 124;
/// Folders of runs that were killed are removed after so long.
const LEFT_OVER: Duration = Duration::from_secs(2 * 24 * 3600);

/// How one boot ended.
#[derive(Debug)]
enum Ending {
    Exited(i32),
    TimedOut,
    /// The guest ended without a status; with what it said last.
    Died {
        ready: bool,
        reason: String,
    },
}

/// A machine ready to boot, with its files in a folder of its own.
struct Assembly {
    folder: TempDir,
    kernel: Kernel,
    disks: Vec<Disk>,
}

/// Boots a guest, runs the command, and gives its exit status.
///
/// # Errors
/// If the machine cannot be made, or dies.
pub fn run(spec: &VmSpec) -> Result<i32> {
    spec.check()?;
    setup::for_vm()?;
    let assembly = assemble(spec)?;
    let first = boot(spec, &assembly)?;
    let ending = match first {
        Ending::Died { ready: false, reason } if !spec.once => {
            say(&format!("vm: {} died before it was ready ({reason}); booting once more", spec.kernel));
            boot(spec, &assembly)?
        }
        other => other,
    };
    match ending {
        Ending::Exited(code) => Ok(code),
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
    Ok(Assembly { folder, kernel, disks })
}

fn disk(serial: &str, image: PathBuf, scratch: bool) -> Disk {
    Disk { serial: serial.to_owned(), image, scratch }
}

fn boot(spec: &VmSpec, assembly: &Assembly) -> Result<Ending> {
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
    let carriers =
        [spawn(move || forward(stdout, io::stdout())), spawn(move || forward(stderr, io::stderr()))];
    let mut follower = Follower { spec, start, out: Some(out.into()), extraction: None, ready: false };
    let ending = follower.follow(&sentences(control))?;
    drop(qemu);
    for carrier in carriers {
        // They end with QEMU, and do not panic.
        let _ = carrier.join();
    }
    follower.finish_extraction()?;
    Ok(ending)
}

/// What the guest says, line by line; the channel ends with QEMU.
fn sentences(control: std::os::unix::net::UnixStream) -> Receiver<String> {
    let (sender, receiver) = channel();
    spawn(move || {
        BufReader::new(control).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    receiver
}

/// Follows a guest from its start to its end.
struct Follower<'a> {
    spec: &'a VmSpec,
    start: Instant,
    out: Option<OwnedFd>,
    extraction: Option<Child>,
    ready: bool,
}

impl Follower<'_> {
    fn follow(&mut self, sentences: &Receiver<String>) -> Result<Ending> {
        loop {
            let left = self.spec.timeout.saturating_sub(self.start.elapsed());
            let line = match sentences.recv_timeout(left) {
                Ok(line) => line,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => return Ok(Ending::TimedOut),
                Err(_) => return Ok(self.died("it ended without giving an exit status")),
            };
            match line.split_once(' ').unwrap_or((&line, "")) {
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
                    return Ok(Ending::Exited(code.parse().context("the guest gave an odd exit status")?));
                }
                ("failed", reason) => return Ok(self.died(reason)),
                _ => return Ok(self.died(&format!("it said `{line}`, which nobody understands"))),
            }
        }
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

fn remove_left_overs(runs: &Path) {
    for entry in fs::read_dir(runs).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|when| when.elapsed().ok());
        if age.is_some_and(|age| age > LEFT_OVER) {
            // The next run tries again.
            let _ = cache::remove(&entry.path());
        }
    }
}
