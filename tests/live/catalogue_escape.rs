//! Ways to get out of the session, or past its rules while they change hands, by the numbers of the catalogue.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use agentwatch::event::{Event, Kind, Verdict};
use agentwatch::kernel::maps::Maps;
use agentwatch_common::{limits, maps::control};
use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal};
use tests::compare::json_lines;
use tests::daemon::{Daemon, PATIENCE, Shared};
use tests::gate::Gate;
use tests::session::{SessionRun, act_outside, act_words, wait, work_dir};
use tests::tries::tried;

use crate::guards;

/// The kernel's table of processes, as if it were full; as it was when this goes.
struct Full(Maps);

impl Full {
    fn new() -> Result<Self> {
        let pins = fs::read_dir("/sys/fs/bpf/agentwatch")?.next().context("no pins")??.path();
        let mut maps = Maps::open(&pins)?;
        add(&mut maps, limits::PROCESSES_MOST.into())?;
        Ok(Self(maps))
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = add(&mut self.0, -i64::from(limits::PROCESSES_MOST));
    }
}

fn add(maps: &mut Maps, count: i64) -> Result<()> {
    let word = control::PROCESSES_BY_DAEMON;
    let before = maps.word(word)?;
    Ok(maps.set_word(word, before.wrapping_add_signed(count))?)
}

/// What the rules of the tests' policy protect.
const FILE: &str = "/srv/aw-prod/f";

fn protected() -> Result<()> {
    fs::create_dir_all("/srv/aw-prod")?;
    fs::write(FILE, "precious").context("cannot make the protected file")
}

/// Refusals of a session, which are all by the rule on the file; the file is there.
fn refusals(run: &SessionRun) -> Result<Vec<&Event>> {
    let denied: Vec<&Event> = run.own().filter(|event| event.verdict == Verdict::Denied).collect();
    let by_rule = |event: &&Event| {
        event.rule.as_deref() == Some("protected")
            && event.file.as_ref().is_some_and(|file| file.path.0 == FILE)
    };
    ensure!(denied.iter().all(by_rule), "{}", json_lines(denied));
    ensure!(Path::new(FILE).exists(), "it was removed: {}", json_lines(run.own()));
    Ok(denied)
}

/// A child whose first act is what is refused, 200 times.
const FIRST_ACTS: &str = "
ended = set()
for _ in range(200):
    try:
        child(lambda: os.unlink('/srv/aw-prod/f'))
    except OSError as error:
        ended.add(error.errno)
if ended != {1}:
    raise OSError(99, str(ended))
";

/// A process without a parent in its session, which acts when all others of it have ended.
const DAEMON: &str = "
ends, held = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(held)
        os.read(ends, 1)
        try:
            os.unlink('/srv/aw-prod/f')
        except OSError as error:
            os._exit(error.errno)
    os._exit(0)
";

/// Another name, and other arguments than it was started with.
const DISGUISE: &str = "
open('/proc/self/comm', 'w').write('systemd')
start = int(open('/proc/self/stat').read().rsplit(') ', 1)[1].split()[45])
ctypes.memset(start, ord('x'), 7)
os.unlink('/srv/aw-prod/f')
";

/// D01, D04, D18, F04, F07: from the first act of a child to the last of an orphan, whatever it makes of its name.
#[test]
fn no_process_of_a_session_is_ever_outside() -> Result<()> {
    Shared::with(|daemon| {
        protected()?;
        let (errors, run) = tried(daemon, "strict", &[FIRST_ACTS.to_owned()])?;
        let denied = refusals(&run)?;
        let by: BTreeSet<_> = denied.iter().filter_map(|event| Some(event.process.as_ref()?.pid)).collect();
        ensure!(errors == [0] && denied.len() == 200 && by.len() == 200, "{errors:?}, {} told", denied.len());

        let (errors, run) = tried(daemon, "strict", &[DAEMON.to_owned()])?;
        let denied = refusals(&run)?;
        let orphan = |event: &&Event| {
            event
                .process
                .as_ref()
                .is_some_and(|process| process.pid != run.pid && process.ppid != Some(run.pid))
        };
        ensure!(errors == [0] && denied.len() == 1 && denied.iter().all(orphan), "{}", json_lines(denied));
        let end = run.of_kind(Kind::ProcessExit).last().context("nobody ended")?;
        ensure!(end.exit.as_ref().and_then(|exit| exit.code) == Some(1), "{}", json_lines(run.own()));

        let (errors, run) = tried(daemon, "strict", &[DISGUISE.to_owned()])?;
        let denied = refusals(&run)?;
        let as_started = |event: &&Event| {
            event.process.as_ref().is_some_and(|process| {
                let name = process.command_args.first().is_some_and(|arg| arg.0 == "python3");
                name && process.executable_path.0.contains("/python3")
            })
        };
        ensure!(
            errors == [1] && denied.len() == 1 && denied.iter().all(as_started),
            "{}",
            json_lines(denied)
        );
        Ok(())
    })
}

/// Connects 300 times to an address of which another thread changes the port meanwhile. Both differ in one byte alone, for
/// it writes them byte by byte, and the one that is open is none that the kernel gives to whoever connects: that would now
/// and then connect to itself.
const RACE: &str = "
address = (ctypes.c_char * 16).from_buffer(bytearray(
    struct.pack('=HH4s8x', 2, socket.htons(54321), socket.inet_aton('127.0.0.1'))))
ports, stop = (struct.pack('>H', 54321), struct.pack('>H', 0x5431)), []
def change():
    while not stop:
        for port in ports:
            address[2:4] = port
changer = threading.Thread(target=change)
changer.start()
sys.setswitchinterval(1e-5)
ended = {}
for _ in range(300):
    with socket.socket() as one:
        libc.connect(one.fileno(), address, 16)
        errno = ctypes.get_errno()
        ctypes.set_errno(0)
        ended[errno] = ended.get(errno, 0) + 1
stop.append(1)
changer.join()
print('refused', ended.get(1, 0))
print(ended, file=sys.stderr)
if set(ended) - {1, 111} or not ended.get(1):
    raise OSError(99, str(ended))
";

/// F01: what is judged is what the kernel uses, whatever a second thread makes of the caller's memory.
#[test]
fn an_address_that_changes_meanwhile_is_judged_as_it_is_used() -> Result<()> {
    Shared::with(|daemon| {
        let server = TcpListener::bind("127.0.0.1:54321")?;
        server.set_nonblocking(true)?;
        let (errors, run) = tried(daemon, "strict", &[RACE.to_owned()])?;
        ensure!(errors == [0] && server.accept().is_err(), "{errors:?} {}", run.stderr);
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        let refused = said.split_whitespace().nth(1).context("nothing was said")?.parse::<u64>()?;
        let connects = |verdict| {
            let told = run.of_kind(Kind::NetConnect).filter(move |event| event.verdict == verdict);
            told.map(|event| (event.count, event.network.as_ref().and_then(|network| network.peer_port)))
        };
        let of_port = |verdict, port| -> (u64, bool) {
            let all: Vec<_> = connects(verdict).collect();
            (all.iter().map(|(count, _)| count).sum(), all.iter().all(|(_, told)| *told == Some(port)))
        };
        ensure!(of_port(Verdict::Denied, 54321) == (refused, true), "{refused}: {}", json_lines(run.own()));
        ensure!(
            of_port(Verdict::Allowed, 0x5431) == (300 - refused, true),
            "{refused}: {}",
            json_lines(run.own())
        );
        Ok(())
    })
}

/// The daemon stands still until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn new(daemon: &Daemon) -> Result<Self> {
        let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw).context("no process id")?;
        rustix::process::kill_process(pid, Signal::STOP).context("cannot stop the daemon")?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, Signal::CONT);
    }
}

/// E01, E11, F08: while the daemon stands still, also when there is no room left to tell it anything.
#[test]
fn while_the_daemon_stands_still_rules_hold() -> Result<()> {
    Shared::with(|daemon| {
        protected()?;
        let dir = work_dir()?;
        let mut gate = Gate::new(dir.path())?;
        let load =
            ["load", "--op", "create-unlink", "--files", "20000", "--distinct", "20000", "--rate", "max"];
        let load = act_words(dir.path(), &load).join(" ".as_ref()).to_string_lossy().into_owned();
        let script = format!("{}; rm {FILE}; {load}; rm {FILE}; true", gate.wait());
        let mut command = daemon.exec_as("strict", ["sh", "-c", &script]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // Once the command runs, nobody waits for the daemon's answer any more.
        let started = daemon
            .wait_for("the command", |event| event.kind == Kind::ProcessExec && &*event.agent == "strict")?;
        let session = started.last().map(|event| event.session.clone()).context("no session")?;
        let stopped = Stopped::new(daemon)?;
        gate.open()?;
        ensure!(wait(&mut child)?.success(), "the session failed");
        ensure!(Path::new(FILE).exists(), "it was removed while the daemon stood still");
        drop(stopped);
        let (mut denied, mut lost, mut others) = (0, 0, 0);
        daemon.until("the end of the session", |event| {
            let refused = event.verdict == Verdict::Denied && event.kind == Kind::FileDelete;
            denied += u32::from(refused && event.rule.as_deref() == Some("protected"));
            lost += event.loss.as_ref().map_or(0, |loss| loss.count);
            others += u32::from(!event.session.is_empty() && event.session != session);
            Ok(event.kind == Kind::SessionEnd && event.session == session)
        })?;
        // The first came before the flood; of the second it is said that something is missing.
        ensure!(denied >= 1 && lost > 0 && others == 0, "{denied} refusals, {lost} lost, {others} of others");
        Ok(())
    })
}

/// Case E16.
#[test]
fn a_child_that_has_no_room_is_not_made() -> Result<()> {
    Shared::with(|daemon| {
        let forks = |run: &SessionRun| run.of_kind(Kind::ProcessFork).cloned().collect::<Vec<_>>();
        let full = Full::new()?;
        // Whatever the guards are.
        for agent in ["strict", "open"] {
            let (errno, run) = guards::tried(daemon, agent, &["fork"])?;
            let (told, all) = (forks(&run), json_lines(&run.events));
            let [event] = told.as_slice() else { anyhow::bail!("{all}") };
            ensure!(errno == 1 && event.errno.as_deref() == Some("EPERM"), "errno {errno}\n{all}");
            ensure!((event.verdict, event.rule.as_deref()) == (Verdict::Denied, Some("undecided")), "{all}");
            ensure!(event.reason.as_deref().is_some_and(|why| why.contains("table of processes")), "{all}");
            ensure!(event.child.is_none() && event.policy.is_some(), "{all}");
        }
        // Where nothing is enforced it is a loss.
        for agent in ["soft", "test"] {
            let (errno, run) = guards::tried(daemon, agent, &["fork"])?;
            let told = forks(&run);
            let all = json_lines(&run.events);
            ensure!(
                errno == 0 && told.len() == 1 && told[0].verdict == Verdict::Allowed,
                "errno {errno}\n{all}"
            );
            let lost = |event: &Event| {
                event.loss.as_ref().is_some_and(|loss| loss.reason == "process_table_full" && loss.count == 1)
            };
            ensure!(run.of_kind(Kind::Loss).any(lost), "{all}");
        }
        let (told, _dir) = act_outside(&["try", "fork"])?;
        ensure!(told.number("errno")? == 0, "outside: {told:?}");
        drop(full);
        let (errno, run) = guards::tried(daemon, "strict", &["fork"])?;
        ensure!(errno == 0 && forks(&run).iter().all(|event| event.child.is_some()), "errno {errno}");
        Ok(())
    })
}

/// Case E16: whether there is room goes by a count, which is right when all is quiet.
#[test]
fn processes_are_counted_as_they_come_and_go() -> Result<()> {
    Shared::with(|daemon| {
        daemon.act(&["fork-storm", "100"])?;
        guards::tried(daemon, "strict", &["fork"])?;
        daemon.act(&["exec-thread"])?;
        daemon.sentinel()?;
        let pins = fs::read_dir("/sys/fs/bpf/agentwatch")?.next().context("no pins")??.path();
        let maps = Maps::open(&pins)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (there, counted) = (maps.processes.iter().count(), maps.processes.counted()?);
            if i64::try_from(there)? == counted {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{there} processes are in the table, and {counted} counted");
            std::thread::yield_now();
        }
    })
}
