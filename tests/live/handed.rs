//! What a process outside hands over to a session, or a session takes from it.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use agentwatch::event::{Event, Kind, Verdict};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;
use tests::compare::json_lines;
use tests::daemon::Shared;
use tests::session::{SessionRun, work_dir};
use tests::tries::{Refusal, all_refused, refusal, tried};

const FILE: &str = "/srv/aw-prod/f";
const SOCKET: &str = "/srv/aw-run/.s.PGSQL.5432";

/// Asks for a descriptor; the kernel tells of one that it does not hand out only that something is missing.
const ASK: &str = "
def ask(what):
    asking = socket.socket(socket.AF_UNIX)
    asking.connect(GIVER)
    asking.sendall(what.encode() + b'\\n')
    _, found, flags, _ = socket.recv_fds(asking, 1, 1)
    if not found:
        raise OSError(1 if flags & socket.MSG_CTRUNC else 99, '')
    os.close(found[0])
";

/// A process outside every session, this one, that hands over what it is asked for.
struct Giver {
    dir: TempDir,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Giver {
    fn start() -> Result<Self> {
        let dir = work_dir()?;
        let listener = UnixListener::bind(dir.path().join("giver"))?;
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if !give(stream?)? {
                    break;
                }
            }
            Ok(())
        });
        Ok(Self { dir, thread: Some(thread) })
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("giver")
    }

    /// A piece of Python that asks for this.
    fn asks(&self, what: &str) -> String {
        format!("GIVER = '{}'\n{ASK}\nask('{what}')", self.socket().display())
    }

    fn end(mut self) -> Result<()> {
        UnixStream::connect(self.socket())?.write_all(b"end\n")?;
        let thread = self.thread.take().context("it ended before")?;
        thread.join().map_err(|_| anyhow::anyhow!("the giver panicked"))?
    }
}

/// Hands over what one asks for; false at the end.
fn give(mut stream: UnixStream) -> Result<bool> {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let found: OwnedFd = match line.trim_end().split_once(' ') {
        Some(("read", path)) => File::open(path)?.into(),
        Some(("write", path)) => OpenOptions::new().append(true).open(path)?.into(),
        Some(("tcp", address)) => TcpStream::connect(address)?.into(),
        Some(("unix", path)) => UnixStream::connect(path)?.into(),
        Some(("pipe", _)) => rustix::pipe::pipe()?.0,
        None if line == "end\n" => return Ok(false),
        _ => bail!("nobody knows what this is: {line:?}"),
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [found.as_fd()];
    ensure!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)), "it has no room");
    sendmsg(&stream, &[IoSlice::new(b"x")], &mut ancillary, SendFlags::empty())?;
    stream.flush()?;
    Ok(true)
}

/// The events of what was received.
fn received(run: &SessionRun) -> Vec<&Event> {
    run.own().filter(|event| matches!(event.kind, Kind::FileReceive | Kind::NetReceive)).collect()
}

/// Cases B06, B24, C14.
#[test]
fn what_a_rule_refuses_is_not_taken_from_others() -> Result<()> {
    Shared::with(|daemon| {
        fs::create_dir_all("/srv/aw-prod")?;
        fs::create_dir_all("/srv/aw-run")?;
        fs::write(FILE, "precious")?;
        let _ = fs::remove_file(SOCKET);
        let _unix = UnixListener::bind(SOCKET)?;
        let _tcp = TcpListener::bind("127.0.0.1:54321")?;
        let giver = Giver::start()?;
        let one = |what: &str, kind, target: &str| refusal(giver.asks(what), kind, target);
        let files: [Refusal; 2] =
            ["read", "write"].map(|how| one(&format!("{how} {FILE}"), Kind::FileReceive, FILE));
        all_refused(daemon, "strict", "protected", &files)?;
        let sockets = [
            one("tcp 127.0.0.1:54321", Kind::NetReceive, "127.0.0.1 54321"),
            one(&format!("unix {SOCKET}"), Kind::NetReceive, SOCKET),
        ];
        all_refused(daemon, "strict", "database", &sockets)?;
        let device = one("read /dev/mem", Kind::FileReceive, "/dev/mem");
        all_refused(daemon, "strict", "guard: raw-device", &[device])?;

        // Where nothing is enforced it is told, and outside it goes through.
        let asks = [format!("read {FILE}"), "tcp 127.0.0.1:54321".to_owned()].map(|what| giver.asks(&what));
        let (errors, run) = tried(daemon, "soft", &asks)?;
        let told = received(&run);
        let would = |event: &&Event| event.verdict == Verdict::WouldDeny;
        ensure!(
            errors == [0, 0] && told.len() == 2 && told.iter().all(would),
            "{errors:?}{}",
            json_lines(told)
        );
        let code = format!("import os, socket\n{}", asks.join("\n"));
        ensure!(Command::new("python3").args(["-c", &code]).status()?.success(), "outside it is refused");

        // What no rule is about is told, where it has a name.
        let asks = ["read /etc/services", "pipe -"].map(|what| giver.asks(what));
        let (errors, run) = tried(daemon, "strict", &asks)?;
        let told = received(&run);
        let allowed = told.len() == 1
            && told.iter().all(|event| {
                event.verdict == Verdict::Allowed
                    && event.file.as_ref().is_some_and(|file| file.path.0 == "/etc/services")
            });
        ensure!(errors == [0, 0] && allowed, "{errors:?}{}", json_lines(told));
        fs::remove_file(SOCKET)?;
        giver.end()
    })
}

/// Case B06, where the guard `ptrace` is off.
#[test]
fn a_descriptor_is_not_taken_out_of_another_process() -> Result<()> {
    Shared::with(|daemon| {
        fs::create_dir_all("/srv/aw-prod")?;
        fs::write(FILE, "precious")?;
        let held = File::open(FILE)?;
        let taking = format!(
            "call(libc.syscall(438, os.pidfd_open({}), {}, 0))",
            std::process::id(),
            held.as_raw_fd()
        );
        all_refused(daemon, "open", "everywhere", &[refusal(&taking, Kind::FileReceive, FILE)])?;
        ensure!(Path::new(FILE).exists(), "it is gone");
        let (errors, run) = tried(daemon, "test", &[taking])?;
        ensure!(errors == [0] && received(&run).len() == 1, "{errors:?}{}", json_lines(run.own()));
        Ok(())
    })
}
