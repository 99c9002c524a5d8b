//! Acts of threads.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Subcommand;

use super::record::{Recorder, did};
use super::spawn::{self, Reports, Way};
use crate::truth::Did;

/// How long a thread waits for another one's end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Acts of threads.
#[derive(Subcommand)]
pub enum Act {
    /// N threads, each of which creates its own file
    Threads {
        /// How many
        n: u32,
    },
    /// A thread that is not the process's first one execs
    ExecThread,
    /// The first thread ends, another goes on and acts; the process ends with 7
    LeaderExits,
}

impl Act {
    /// Does it.
    pub fn run(&self, rec: &Recorder) -> Result<()> {
        match *self {
            Self::Threads { n } => threads(rec, n),
            Self::ExecThread => exec_thread(rec),
            Self::LeaderExits => leader_exits(rec),
        }
    }
}

fn threads(rec: &Recorder, n: u32) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n)
            .map(|index| scope.spawn(move || rec.create(&rec.path(format!("thread-{index}"))).map(drop)))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}

fn exec_thread(rec: &Recorder) -> Result<()> {
    let program = spawn::own_program()?;
    let args = spawn::noop_args();
    let pid = spawn::fork(rec, Way::default(), || {
        let thread = std::thread::scope(|scope| scope.spawn(|| spawn::exec(&program, &args)).join());
        thread.map_err(|_| anyhow!("the thread panicked"))?
    })?;
    rec.push(spawn::executed(pid, &program, &args));
    spawn::wait(rec, pid)?;
    Ok(())
}

fn leader_exits(rec: &Recorder) -> Result<()> {
    const CODE: u8 = 7;
    let reports = std::sync::Arc::new(Reports::new()?);
    let dir = rec.dir().to_path_buf();
    let theirs = std::sync::Arc::clone(&reports);
    let pid = spawn::fork(rec, Way::default(), move || {
        std::thread::spawn(move || {
            let acted = theirs.report(&Recorder::new(dir), |rec| {
                wait_for_zombie()?;
                rec.create(&rec.path("after-leader")).map(drop)
            });
            let code = if acted.is_ok() { CODE.into() } else { 99 };
            // SAFETY: always sound; ends the whole process.
            unsafe { libc::_exit(code) }
        });
        // SAFETY: ends this thread alone, without unwinding: what it borrows stays, since its stack is not freed.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
        bail!("the first thread went on")
    })?;
    let reports = std::sync::Arc::into_inner(reports).context("the pipe is still in use")?;
    reports.collect(rec, None)?;
    let status = spawn::reap(pid)?;
    rec.push(Did { code: Some(CODE), ..spawn::ended(pid, status) });
    anyhow::ensure!(status.exit_status() == Some(CODE.into()), "the child ended otherwise: {status:?}");
    rec.fact("first_thread", did("").pid);
    Ok(())
}

/// Waits until the first thread of this process has ended.
fn wait_for_zombie() -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
        if status.lines().any(|line| line.starts_with("State:\tZ")) {
            return Ok(());
        }
        std::thread::yield_now();
    }
    bail!("the first thread did not end within {PATIENCE:?}")
}
