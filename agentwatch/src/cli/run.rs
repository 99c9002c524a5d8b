//! `agentwatch run`: the daemon.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use crate::{
    control::otlp::parse_address,
    daemon::{Daemon, Options},
    exit,
    log::Limits,
    paths::Paths,
    policy,
};

/// Run the daemon: see every agent on this host and write what it does to the attribution log
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch run                              with the built-in list of known agents
  agentwatch run --policy /etc/agentwatch.yaml
  agentwatch run --policy new.yaml --mode recommend
                                              tell what the policy would refuse
  agentwatch run --strict --policy prod.yaml  do not run where rules are not proved to be enforced
  agentwatch run --detach-on-exit             leave nothing in the kernel at the end
  agentwatch run --otlp 127.0.0.1:4318        take spans of tool calls from sessions, by OTLP/HTTP

Runs in the foreground until SIGTERM or SIGINT. The policy is read again when its files change, and on
SIGHUP; a bad one leaves the old one in force. What `agentwatch policy apply` brought holds until then, over
restarts too. At the end the kernel programs go on, so that a restart misses nothing: `agentwatch run --detach-on-exit` removes them, and so
does removing /sys/fs/bpf/agentwatch.

Where any agent is judged, a self-test at the start, every minute and after each new policy tries one forbidden
thing of each kind: what gets through is told, and not reported as enforced.

Needs root. Exit codes: 0 done, 1 failed, 4 bad policy, 6 the kernel or the privileges do not allow it.")]
pub struct RunArgs {
    /// The policy: a file, or a folder of files read in the order of their names
    #[arg(long, value_name = "PATH")]
    pub policy: Option<PathBuf>,
    /// No agent gets a stricter mode than this, whatever the policy says [default: as the policy says]
    #[arg(long, value_enum, value_name = "MODE")]
    pub mode: Option<Mode>,
    /// Remove the kernel programs at the end
    #[arg(long)]
    pub detach_on_exit: bool,
    /// Do not start, and exit with 6, where the self-test does not prove that what the policy says is enforced
    #[arg(long)]
    pub strict: bool,
    /// Take spans of tool calls here, from processes in sessions: an address of the loopback device and a port
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    pub otlp: Option<SocketAddr>,
    /// Bytes after which a segment of the log is closed
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().segment_bytes)]
    pub segment_bytes: u64,
    /// Bytes of all segments past which the oldest are removed
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().total_bytes)]
    pub total_bytes: u64,
}

/// What a whole host can be held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Nothing is judged
    Observe,
    /// What would be refused is told, and nothing is refused
    Recommend,
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The daemon does not come up.
pub fn run(args: &RunArgs, paths: &Paths) -> anyhow::Result<u8> {
    let limits =
        Limits { segment_bytes: args.segment_bytes, total_bytes: args.total_bytes, ..Limits::default() };
    let options = Options {
        paths: paths.clone(),
        policy: args.policy.clone(),
        mode: args.mode.map(|mode| match mode {
            Mode::Observe => policy::Mode::Observe,
            Mode::Recommend => policy::Mode::Recommend,
        }),
        detach_on_exit: args.detach_on_exit,
        strict: args.strict,
        limits,
        otlp: args.otlp,
    };
    Daemon::run(&options)?;
    Ok(exit::DONE)
}
