//! Loops whose cost is measured: under QEMU's `-icount shift=0` a nanosecond is an instruction.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result, ensure};
use clap::{Subcommand, ValueEnum};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::time::{ClockId, clock_gettime};

use super::load::{self, Op as FileOp};
use super::record::Recorder;
use super::spawn::{self, Way};

/// Loops done before the clock starts: caches and lazily made things are then as they stay.
const WARM_UP: u64 = 100;

/// Benchmarks.
#[derive(Subcommand)]
pub enum Act {
    /// Repeats an operation and prints elapsed nanoseconds, in all and for one
    Bench {
        /// What is repeated
        op: Op,
        /// How often
        n: u64,
    },
}

/// What is repeated.
#[derive(Clone, Copy, ValueEnum)]
pub enum Op {
    /// Opens a file for reading and closes it
    OpenClose,
    /// Creates a file and removes it
    CreateUnlink,
    /// Makes a UDP socket, connects and closes it
    Udp,
    /// Forks, execs this program, waits
    ForkExec,
    /// getppid: what the loop itself costs
    Nothing,
}

impl Act {
    /// Does it.
    pub fn run(&self, rec: &Recorder) -> Result<()> {
        let Self::Bench { op, n } = *self;
        ensure!(n > 0, "at least one time");
        let path = rec.path("bench");
        let program = spawn::own_program()?;
        let args = spawn::noop_args();
        if matches!(op, Op::OpenClose) {
            load::create(&path)?;
        }
        let once = || match op {
            Op::OpenClose => load::once(FileOp::OpenClose, &path),
            Op::CreateUnlink => load::once(FileOp::CreateUnlink, &path),
            Op::Udp => udp(),
            Op::ForkExec => {
                let pid = spawn::fork_unrecorded(Way::default(), || spawn::exec(&program, &args))?;
                spawn::reap(pid).map(drop)
            }
            Op::Nothing => {
                std::hint::black_box(rustix::process::getppid());
                Ok(())
            }
        };
        (0..WARM_UP.min(n)).try_for_each(|_| once())?;
        let start = now_ns();
        (0..n).try_for_each(|_| once())?;
        let elapsed = now_ns().saturating_sub(start);
        rec.fact("n", n);
        rec.fact("elapsed_ns", elapsed);
        rec.fact("ns_per_op", elapsed / n);
        Ok(())
    }
}

fn udp() -> Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .context("no socket")?;
    connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9)).context("cannot connect")
}

fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}
