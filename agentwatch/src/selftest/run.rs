//! The self-test from the daemon's side.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use agentwatch_common::{maps::ProcessEntry, rules::agent_number};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::StatVfsMountFlags,
};

use super::{Outcome, Report, SESSION, canary, folders};
use crate::{kernel::maps::Processes, paths::Paths, policy::CANARY};

/// How long a self-test may take. It takes a hundredth of it.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// Bytes that a canary says at most.
const SAID_MAX: usize = 64 * 1024;

/// Has a canary try everything, and tells what came of it. Waits for it, up to [`DEADLINE`].
pub fn perform(processes: &mut Processes, paths: &Paths) -> Report {
    let mut report = Report::without_outcomes(None);
    let (folder, remark) = place(paths);
    report.trouble = attempt(processes, &folder, &mut report.outcomes).err().map(|error| error.to_string());
    if report.trouble.is_none() && report.outcomes.contains(&Outcome::Unknown) {
        report.trouble = Some("the canary ended before it was through".to_owned());
    }
    if let Some(remark) = remark {
        let trouble = report.trouble.get_or_insert_default();
        trouble.push_str(&remark);
    }
    let _ = fs::remove_dir_all(&folder);
    report
}

/// The folder, and what stands in the way of it.
fn place(paths: &Paths) -> (PathBuf, Option<String>) {
    let all = folders(paths);
    let takes_programs = |folder: &&PathBuf| {
        let above = folder.parent().unwrap_or(folder);
        rustix::fs::statvfs(above).is_ok_and(|found| !found.f_flag.contains(StatVfsMountFlags::NOEXEC))
    };
    match all.iter().find(takes_programs) {
        Some(folder) => (folder.clone(), None),
        None => {
            let [state, run] = &all;
            let remark = format!(
                "no program can be started on the file systems of `{}` and `{}` (`noexec`): give the daemon another \
                 folder by `--state` or `--run-dir`",
                state.display(),
                run.display()
            );
            (state.clone(), Some(remark))
        }
    }
}

fn attempt(processes: &mut Processes, folder: &Path, outcomes: &mut [Outcome]) -> io::Result<()> {
    // What a daemon left that was killed in the middle.
    let _ = fs::remove_dir_all(folder);
    fs::create_dir(folder).map_err(|error| at(folder, &error))?;
    rustix::fs::chmod(folder, rustix::fs::Mode::from_raw_mode(0o700))?;
    let mut child = Command::new("/proc/self/exe")
        .arg(canary::COMMAND)
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| io::Error::other(format!("the canary cannot be started: {error}")))?;
    let result = accompany(processes, &mut child, outcomes);
    if result.is_err() {
        let _ = child.kill();
    }
    child.wait()?;
    result
}

/// Makes it a session once it is ready, and hears it out.
fn accompany(processes: &mut Processes, child: &mut Child, outcomes: &mut [Outcome]) -> io::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (Some(mut input), Some(output)) = (input, output) else {
        return Err(io::Error::other("the canary has no pipes"));
    };
    let mut voice = Voice { output, said: String::new(), deadline };
    while !voice.said.contains(canary::READY) {
        if !voice.listen()? {
            return Err(io::Error::other("the canary ended before it was ready"));
        }
    }
    join(processes, child.id())?;
    input.write_all(b"go")?;
    drop(input);
    while voice.listen()? {}
    canary::hear(&voice.said, outcomes);
    Ok(())
}

/// Puts the process into the canary's session. The kernel forgets it at its end.
fn join(processes: &mut Processes, pid: u32) -> io::Result<()> {
    let stat = i32::try_from(pid).ok().and_then(|pid| procfs::process::Process::new(pid).ok()?.stat().ok());
    let start_ticks = stat.ok_or_else(|| io::Error::other("`/proc` does not show the canary"))?.starttime;
    let entry = ProcessEntry {
        session: SESSION,
        start_ticks,
        agent: agent_number(CANARY),
        ..ProcessEntry::default()
    };
    processes
        .insert(pid, entry)
        .map_err(|error| io::Error::other(format!("the kernel's table does not take the canary: {error}")))
}

fn at(folder: &Path, error: &io::Error) -> io::Error {
    io::Error::other(format!("cannot use `{}`: {error}", folder.display()))
}

/// What a canary says.
struct Voice {
    output: ChildStdout,
    said: String,
    deadline: Instant,
}

impl Voice {
    /// Hears more; false at the end.
    fn listen(&mut self) -> io::Result<bool> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(0), tv_nsec: left.subsec_nanos().into() };
        let too_slow = || {
            let seconds = DEADLINE.as_secs();
            io::Error::other(format!("the canary was not through after {seconds} s"))
        };
        if left.is_zero() || self.said.len() > SAID_MAX {
            return Err(too_slow());
        }
        match poll(&mut [PollFd::new(&self.output, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(too_slow()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 1024];
        let read = self.output.read(&mut bytes)?;
        self.said.push_str(&String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()));
        Ok(read > 0)
    }
}
