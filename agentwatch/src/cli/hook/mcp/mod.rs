//! `agentwatch hook mcp`: stands between a harness and an MCP server, and tells of the calls of its tools.
//!
//! What goes through goes through as it is, whatever becomes of agentwatch: see [`lines`], [`teller`].

mod lines;
mod message;
mod teller;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use self::lines::{Lines, Piece, Unread};
use self::teller::Teller;
use crate::cli::exec::{self, ExecError};
use crate::paths::Paths;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Signals that are passed on to the server. `SIGKILL` cannot be: then the kernel ends the server.
const SIGNALS: [(i32, Signal); 6] = [
    (SIGTERM, Signal::TERM),
    (SIGINT, Signal::INT),
    (SIGHUP, Signal::HUP),
    (SIGQUIT, Signal::QUIT),
    (SIGUSR1, Signal::USR1),
    (SIGUSR2, Signal::USR2),
];
/// What shells give for a program that a signal ended, less its number.
const SIGNALLED: u8 = 128;

/// Stand in front of an MCP server and tell of the calls of its tools
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch hook mcp -- npx -y @modelcontextprotocol/server-filesystem /srv
  agentwatch hook mcp --name files -- /usr/bin/files-server

In a harness's MCP configuration, `command` becomes `agentwatch` and `args` begin with `hook`, `mcp`, `--`, followed by
what was there. The server speaks on standard input and output. What goes through is not changed, but for the answer of a
call to which something was refused, which says so.

Exit codes: the server's own; 127 it was not found, 126 it cannot be executed.")]
pub struct McpArgs {
    /// What the server is called in events, as mcp__NAME__TOOL [default: what it calls itself]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Answer a call of a tool with an error where agentwatch cannot be told of it
    #[arg(long)]
    pub required: bool,
    /// The server and its arguments
    #[arg(last = true, required = true, value_name = "SERVER")]
    pub server: Vec<OsString>,
}

/// Runs the server to its end; gives its exit code, or ends as it did.
///
/// # Errors
/// The server cannot be started.
pub(super) fn run(args: &McpArgs, paths: &Paths) -> anyhow::Result<u8> {
    let (program, arguments) = args.server.split_first().ok_or(ExecError::NoCommand)?;
    let mut teller = Teller::new(paths, args.name.as_deref(), &program.to_string_lossy());
    teller.is_required |= args.required;
    let teller = Arc::new(teller);
    // Before there is a server: none of them is lost.
    let signals = Signals::catch().context("cannot take signals")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    end_with_parent(&mut command);
    let mut server = command.spawn().map_err(|source| exec::failed(program, source))?;
    let (Some(to), Some(from)) = (server.stdin.take(), server.stdout.take()) else {
        anyhow::bail!("the server has no standard input and output");
    };
    let (over, ended) = UnixStream::pair().context("no descriptor is left")?;
    // Without a buffer of its own, which would keep what is no line.
    let client = Arc::new(Mutex::new(File::from(io::stdout().as_fd().try_clone_to_owned()?)));
    let (asking, asker) = (Arc::clone(&teller), Arc::clone(&client));
    // It ends with this process where the client never ends its side.
    std::thread::spawn(move || ask(to, &asking, &asker));
    let answering = std::thread::spawn(move || answer(from, &ended, &teller, &client));
    let status = signals.wait(&mut server);
    drop(over);
    // A panic of it has been printed already.
    let _ = answering.join();
    Ok(end_as(status.context("cannot wait for the server")?))
}

/// Has the kernel end the server when this process does, by `SIGKILL` too: no server is left behind.
fn end_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It was too late.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// Writes to the client: whole, as two threads have something to say to it.
fn give(client: &Mutex<File>, line: &[u8]) -> io::Result<()> {
    client.lock().unwrap_or_else(PoisonError::into_inner).write_all(line)
}

/// Passes on what the client asks, but for what it must not ask.
fn ask(mut to: ChildStdin, teller: &Teller, client: &Mutex<File>) {
    let mut lines = Lines::new(lines::LINE_BYTES);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut pass_on = |piece: Piece<'_>| match piece {
        Piece::Line(line) => match teller.asked(line) {
            None => to.write_all(line),
            Some(refusal) => give(client, &refusal),
        },
        // The server sees the end of its input.
        Piece::Unread(_) if teller.is_required() => Err(io::ErrorKind::InvalidData.into()),
        Piece::Unread(bytes) => to.write_all(bytes),
    };
    let mut input = io::stdin().lock();
    // Where either side is gone, so is this one: the server sees the end of its input.
    while let Some(bytes) = some(|| input.read(&mut chunk)).and_then(|length| chunk.get(..length)) {
        match lines.take(bytes, &mut pass_on) {
            Ok(unread) => say(unread, "the client"),
            Err(_) => return,
        }
    }
    let _ = lines.give_unread(&mut pass_on);
}

/// Passes on what the server answers.
fn answer(from: ChildStdout, ended: &UnixStream, teller: &Teller, client: &Mutex<File>) {
    let mut from = from;
    let mut lines = Lines::new(lines::LINE_BYTES);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut pass_on = |piece: Piece<'_>| match piece {
        Piece::Line(line) => match teller.answered(line) {
            Some(new) => give(client, &new),
            None => give(client, line),
        },
        Piece::Unread(bytes) => give(client, bytes),
    };
    while has_more(&from, ended)
        && let Some(bytes) = some(|| from.read(&mut chunk)).and_then(|length| chunk.get(..length))
    {
        match lines.take(bytes, &mut pass_on) {
            Ok(unread) => say(unread, "the server"),
            // Nobody reads: the server is told by its next write.
            Err(_) => return,
        }
    }
    let _ = lines.give_unread(&mut pass_on);
}

/// How much was read; nothing at the end, and where that cannot go on.
fn some(mut read: impl FnMut() -> io::Result<usize>) -> Option<usize> {
    loop {
        match read() {
            Ok(0) => return None,
            Ok(length) => return Some(length),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Waits until the server has something to say. What it started can keep its output open when it is long gone.
fn has_more(from: &ChildStdout, ended: &UnixStream) -> bool {
    loop {
        let mut fds = [PollFd::new(from, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return true,
        }
        let [of_server, _] = fds;
        return !of_server.revents().is_empty();
    }
}

fn say(unread: Option<Unread>, whose: &str) {
    match unread {
        None => {}
        Some(Unread::Long) => eprintln!(
            "agentwatch: a line of {whose} has more than {} MiB: it goes through unread, and a tool call in it is not told",
            lines::LINE_BYTES >> 20
        ),
        Some(Unread::Headers) => eprintln!(
            "agentwatch: {whose} does not send a message a line: all of it goes through unread, and no tool call is told"
        ),
    }
}

/// The signals that this process gets.
struct Signals {
    caught: Vec<(UnixStream, Signal)>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let mut caught = Vec::new();
        for (number, signal) in SIGNALS {
            let (told, tells) = UnixStream::pair()?;
            told.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(number, tells)?;
            caught.push((told, signal));
        }
        Ok(Self { caught })
    }

    /// Passes them on until the server has ended.
    fn wait(mut self, server: &mut Child) -> io::Result<ExitStatus> {
        let id = i32::try_from(server.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or(io::ErrorKind::InvalidInput)?;
        let Ok(fd) = pidfd_open(id, PidfdFlags::empty()) else { return server.wait() };
        while !self.pass_on(&fd, id)? {}
        server.wait()
    }

    /// Waits for signals or the end. True for that.
    fn pass_on(&mut self, server: &OwnedFd, id: Pid) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(server, PollFlags::IN)];
        fds.extend(self.caught.iter().map(|(told, _)| PollFd::from_borrowed_fd(told.as_fd(), PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds.first().is_some_and(|fd| !fd.revents().is_empty()) {
            return Ok(true);
        }
        drop(fds);
        for (told, signal) in &mut self.caught {
            if matches!(told.read(&mut [0; 64]), Ok(1..)) {
                // One that has just ended needs none.
                let _ = kill_process(id, *signal);
            }
        }
        Ok(false)
    }
}

/// Ends as the server did: by its signal, or else gives its exit code.
fn end_as(status: ExitStatus) -> u8 {
    if let Some(signal) = status.signal() {
        let _ = signal_hook::low_level::emulate_default_handler(signal);
        return SIGNALLED.saturating_add(u8::try_from(signal).unwrap_or_default());
    }
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(crate::exit::FAILED)
}
