//! `agentwatch blame`: who caused this.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::events::code_of;
use super::failure;
use super::print::{self, Format};
use crate::blame::{self, Address, FileBlame, LookedThrough, ProcessBlame, SocketBlame};
use crate::exit;
use crate::paths::Paths;
use crate::written;

mod text;

/// Acts that are shown where nothing is said of it.
const ACTS: usize = 10;

/// Say who caused this: which session, by which tool call, for which prompt, when, under which policy
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Examples:
  agentwatch blame /etc/cron.d/backup               who wrote it, and what it caused since
  agentwatch blame --pid 4711                       in which session a process is, and why
  agentwatch blame --socket 10.0.0.5:5432           who connected there, or listened
  agentwatch blame --socket /run/docker.sock -o json | jq '.acts[].session'

A process that starts, interprets or loads a file which a session wrote is a session of its own, however
much later and whoever starts it: `attribution` is `caused`, and its `session.start` has the cause.

Works while no daemon runs, too: from the log, and from what is kept of files that sessions wrote. Exit
codes: 0 done, 1 failed, or nobody is known: what was looked through is said, 2 usage, 5 there is no log,
6 no permission to read it.")]
pub struct BlameArgs {
    /// A file or folder
    #[arg(value_name = "PATH", required_unless_present_any = ["pid", "socket"], conflicts_with_all = ["pid", "socket"])]
    pub path: Option<PathBuf>,
    /// A process, running or ended: the latest of this number
    #[arg(long, value_name = "PID", conflicts_with = "socket")]
    pub pid: Option<u32>,
    /// An IP address with or without a port, the path of a Unix socket, or @NAME of an abstract one
    #[arg(long, value_name = "ADDR", value_parser = Address::parse)]
    pub socket: Option<Address>,
    /// How many acts are shown, the latest first
    #[arg(long, value_name = "N", default_value_t = ACTS)]
    pub limit: usize,
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// What was found.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    File(Box<FileBlame>),
    Process(Box<ProcessBlame>),
    Socket(SocketBlame),
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The log cannot be read, the answer cannot be written, or nobody is known.
pub fn run(args: &BlameArgs, paths: &Paths) -> anyhow::Result<u8> {
    let answer = match find(args, &paths.state) {
        Ok(answer) => answer,
        Err(error) => match code_of(&error) {
            exit::FAILED => return Err(error),
            code => {
                let _ = failure::report(&error);
                return Ok(code);
            }
        },
    };
    let text = match args.output {
        Format::Json => print::json(&answer, print::to_terminal())?,
        Format::Text => {
            let zone = TimeZone::system();
            match &answer {
                Answer::File(file) => text::file(file, &zone),
                Answer::Process(process) => text::process(process, runs(process)),
                Answer::Socket(socket) => text::socket(socket, &zone),
            }
        }
    };
    print::print(&text)?;
    Ok(exit::DONE)
}

fn find(args: &BlameArgs, state: &Path) -> anyhow::Result<Answer> {
    if let Some(pid) = args.pid {
        let (found, looked) = blame::of_process(state, pid)?;
        let nobody = || nobody(&format!("no session had a process {pid}"), &looked);
        return Ok(Answer::Process(Box::new(found.ok_or_else(nobody)?)));
    }
    if let Some(address) = &args.socket {
        let found = blame::of_socket(state, address, args.limit)?;
        if found.acts.is_empty() && found.more_acts == 0 {
            return Err(nobody("no session used this address", &found.looked_through));
        }
        return Ok(Answer::Socket(found));
    }
    let asked = args.path.clone().unwrap_or_default();
    let path = whole(&asked)?;
    let inode = fs::symlink_metadata(&path).ok().map(|found| found.ino());
    let (kept, _damaged) = written::read(state)?;
    let found = blame::of_file(state, path.as_os_str().as_bytes(), inode, &kept, args.limit)?;
    if found.is_empty() {
        return Err(nobody(&format!("no session wrote `{}`", path.display()), &found.looked_through));
    }
    Ok(Answer::File(Box::new(found)))
}

fn nobody(what: &str, looked: &LookedThrough) -> anyhow::Error {
    anyhow::anyhow!("{what}, as far as is known: {}", looked.sentence())
}

/// The path as the log has it: from the root, without symbolic links, whether the file is there still or not.
fn whole(path: &Path) -> anyhow::Result<PathBuf> {
    if let Ok(found) = fs::canonicalize(path) {
        return Ok(found);
    }
    let whole = std::path::absolute(path)?;
    let (Some(folder), Some(name)) = (whole.parent(), whole.file_name()) else { return Ok(whole) };
    Ok(fs::canonicalize(folder).map_or_else(|_| whole.clone(), |folder| folder.join(name)))
}

/// Whether a process runs still, as far as `/proc` tells.
fn runs(process: &ProcessBlame) -> bool {
    /// Nanoseconds in a clock tick of `/proc/PID/stat`.
    const NS_PER_TICK: u64 = 10_000_000;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let began = i32::try_from(process.pid)
        .ok()
        .and_then(|pid| procfs::process::Process::new(pid).ok())
        .and_then(|running| running.stat().ok())
        .map(|stat| stat.starttime);
    boot.trim() == &*process.boot_id && began == Some(process.start_time / NS_PER_TICK)
}
