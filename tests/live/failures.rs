//! Bad input and bad luck: what agentwatch says where it cannot work, how it ends, and what it loses.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use agentwatch::event::{Event, Kind};
use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::pty::OpenptFlags;
use tests::compare::{bytes, json_lines, same_acts, same_processes};
use tests::daemon::{Daemon, PATIENCE, PINS, Place, Shared};
use tests::session::{SessionRun, act_words, contents, copy_actor, truth, wait, work_dir};
use tests::truth::Bytes;

use crate::load::Counted;
use crate::restarts::{Shell, all_events, is_creation};

/// Checks how a command ended: its exit code, and words of its one sentence.
fn ended(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "{} instead of {code}: {said}", output.status);
    for word in words {
        ensure!(said.contains(word), "`{word}` is not in: {said}");
    }
    ensure!(said.lines().count() == 1, "not one sentence: {said}");
    Ok(())
}

/// What a command says that is to end by itself. A daemon that comes up instead is ended and told.
fn outcome(command: &mut Command) -> Result<Output> {
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let status = wait(&mut child);
    let (stdout, stderr) = (contents(&stdout)?, contents(&stderr)?);
    let status = status.with_context(|| String::from_utf8_lossy(&stderr).into_owned())?;
    Ok(Output { status, stdout, stderr })
}

/// `agentwatch` with these words, in a mount namespace of its own that a shell command changes first.
fn with_mounts(change: &str, place: &Place, words: &[&str]) -> Result<Output> {
    let like = place.agentwatch(words);
    let script = format!("set -e; {change}; exec agentwatch \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]).args(like.get_args());
    command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outcome(&mut command)
}

/// A daemon that cannot come up leaves nothing in the kernel.
fn nothing_is_pinned() -> Result<()> {
    let left: Vec<_> =
        std::fs::read_dir(PINS).into_iter().flatten().flatten().map(|one| one.path()).collect();
    ensure!(left.is_empty(), "left in the kernel: {left:?}");
    Ok(())
}

#[test]
fn without_root_it_says_how_to_start_it() -> Result<()> {
    let _machine = Shared::none()?;
    let place = Place::new()?;
    let tries = |place: &Place| {
        [&["run"][..], &["doctor"]].into_iter().try_for_each(|words| {
            let like = place.agentwatch(words);
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--clear-groups", "agentwatch"]).args(like.get_args());
            command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
            ended(&outcome(&mut command)?, 6, &["must run as root", "sudo"])
        })
    };
    tries(&place)?;
    ensure!(!place.state().exists(), "it made a state folder");
    // One that an earlier daemon left cannot be read.
    std::fs::create_dir(place.state())?;
    std::fs::set_permissions(place.state(), std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    tries(&place)?;
    nothing_is_pinned()
}

/// Case E08.
#[test]
fn without_the_bpf_security_module_it_says_what_to_add() -> Result<()> {
    let _machine = Shared::none()?;
    let place = Place::new()?;
    let hide = "echo lockdown,capability > /tmp/aw-lsm; mount --bind /tmp/aw-lsm /sys/kernel/security/lsm";
    for words in [&["run"][..], &["doctor"]] {
        let output = with_mounts(hide, &place, words)?;
        ended(&output, 6, &["`lockdown,capability`", "add `bpf` to the kernel's `lsm=`"])?;
    }
    ensure!(!place.state().exists(), "it made a state folder");
    nothing_is_pinned()
}

/// Case E08.
#[test]
fn without_type_information_it_says_what_the_kernel_lacks() -> Result<()> {
    let _machine = Shared::none()?;
    let place = Place::new()?;
    let none = "mount -t tmpfs none /sys/kernel/btf";
    let damaged = "head -c 4096 /sys/kernel/btf/vmlinux > /tmp/aw-btf; \
                   mount --bind /tmp/aw-btf /sys/kernel/btf/vmlinux";
    for (hide, words) in [(none, &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"][..]), (damaged, &[])] {
        for command in ["run", "doctor"] {
            let output = with_mounts(hide, &place, &[command])?;
            ended(&output, 6, &[&["this kernel's type information"], words].concat())?;
            nothing_is_pinned()?;
        }
    }
    Ok(())
}

#[test]
fn a_state_folder_that_cannot_be_written_is_refused() -> Result<()> {
    let _machine = Shared::none()?;
    let place = Place::new()?;
    let state = place.state();
    std::fs::create_dir(&state)?;
    let at = state.display();
    let read_only = format!("mount -t tmpfs -o ro none '{at}'");
    let full = format!("mount -t tmpfs -o size=16k none '{at}'; cat /dev/zero > '{at}/fill' 2>&- || :");
    let file = format!("mount -t tmpfs none '{at}'; touch '{at}/log'");
    for change in [read_only, full, file] {
        let output = with_mounts(&change, &place, &["run"])?;
        ended(&output, 1, &["the state folder cannot be used", &at.to_string(), "--state"])
            .with_context(|| change)?;
        nothing_is_pinned()?;
    }
    Ok(())
}

#[test]
fn without_a_daemon_questions_are_refused() -> Result<()> {
    let _machine = Shared::apart()?;
    let place = Place::new()?;
    for words in [&["agents"][..], &["tree", "test-000000"], &["events"]] {
        ended(&outcome(&mut place.agentwatch(words))?, 5, &["agentwatch run"])?;
    }
    Ok(())
}

/// Case E18.
#[test]
fn a_second_daemon_is_refused_whatever_its_folders() -> Result<()> {
    Shared::with(|daemon| {
        let pid = daemon.pid().to_string();
        let other = tempfile::tempdir()?;
        let start = |run: Option<&Path>, state: Option<&Path>| {
            let mut command = daemon.place().agentwatch(["run", "--detach-on-exit"]);
            run.map(|run| command.env("AGENTWATCH_RUN", run));
            state.map(|state| command.env("AGENTWATCH_STATE", state));
            outcome(&mut command)
        };
        let (run, state) = (other.path().join("run"), other.path().join("state"));
        ended(&start(None, None)?, 1, &["another agentwatch runs", &pid, "stop that one first"])?;
        ended(&start(None, Some(&state))?, 1, &["another agentwatch runs", &pid])?;
        ended(&start(Some(&run), None)?, 1, &["already keeps its state", &pid])?;
        ended(
            &start(Some(&run), Some(&state))?,
            1,
            &["another agentwatch already runs the kernel programs"],
        )?;
        // Nor does a look at the kernel disturb the first.
        let mut doctor = daemon.place().agentwatch(["doctor"]);
        ended(&outcome(doctor.env("AGENTWATCH_RUN", &run))?, 1, &["another agentwatch already runs"])?;
        let act = daemon.act(&["rename"])?;
        same_acts(&act)?;
        ensure!(act.events.iter().all(|event| event.kind != Kind::Loss), "{}", json_lines(&act.events));
        Ok(())
    })
}

/// A small file system, until this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Result<Self> {
        std::fs::create_dir(&at)?;
        rustix::mount::mount("none", &at, "tmpfs", MountFlags::empty(), Some(c"size=64m"))
            .context("cannot mount a small file system")?;
        Ok(Self(at))
    }

    /// Takes all its room but some bytes.
    fn fill_all_but(&self, left: u64) -> Result<()> {
        let found = rustix::fs::statvfs(&self.0).context("cannot ask for the room")?;
        let room = found.f_bavail.saturating_mul(found.f_frsize);
        let file = File::create(self.0.join("fill"))?;
        let length = room.checked_sub(left).context("there is less room")?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length)
            .context("cannot take the room")
    }

    fn make_room(&self) -> Result<()> {
        std::fs::remove_file(self.0.join("fill")).context("cannot make room")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Asks `doctor` about the log until it says that it cannot be written and that events found no room.
fn wait_until_events_find_no_room(place: &Place) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = place.agentwatch(["doctor", "-o", "json"]).output()?;
        let lines: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        if let Some(log) = lines.iter().find(|line| line["name"] == "log") {
            ensure!(log["state"] == "absent" && output.status.code() == Some(3), "{log}, {}", output.status);
            let reason = log["reason"].as_str().context("no reason")?;
            ensure!(reason.contains("No space left on device"), "{reason}");
            if !reason.contains(" and 0 found no room") {
                return Ok(());
            }
        }
        ensure!(Instant::now() < deadline, "the log never filled: {lines:?}");
    }
}

/// Case E12.
#[test]
fn a_disk_that_fills_and_has_room_again_costs_only_what_is_counted() -> Result<()> {
    const LOAD: [&str; 7] = ["load", "--op", "create-unlink", "--files", "8000", "--distinct", "8000"];
    let _machine = Shared::none()?;
    let place = Place::new()?;
    let disk = SmallDisk::mount(place.state())?;
    let mut daemon = Daemon::start(&place)?;
    disk.fill_all_but(512 * 1024)?;
    let dir = work_dir()?;
    let output = tempfile::NamedTempFile::new()?;
    let words = act_words(dir.path(), &[&LOAD[..], &["--rate", "max"]].concat());
    let mut child = daemon.exec(words).stdout(output.reopen()?).spawn().context("cannot start the load")?;
    let mut counted = Counted::new(child.id(), dir.path());
    ensure!(wait(&mut child)?.success(), "the load failed");
    let truth = truth(&std::fs::read(output.path())?)?;
    wait_until_events_find_no_room(&place).with_context(|| daemon.said())?;
    let written = all_events(&place)?;

    disk.make_room()?;
    let mut reasons = Vec::new();
    daemon.until("account of every loss", |event| {
        counted.take(&event);
        reasons.extend(event.loss.as_ref().map(|loss| loss.reason.clone()));
        counted.is_all(&truth)
    })?;
    ensure!(reasons.iter().any(|reason| reason == "disk_full"), "{reasons:?}");
    ensure!(counted.told.values().all(|told| told.lost > 0), "{:?}", counted.told);
    // It goes on as if nothing had been, and says so. What is told after the account comes first.
    daemon.sentinel()?;
    same_acts(&daemon.act(&["rename"])?)?;
    let doctor = place.agentwatch(["doctor", "-o", "json"]).output()?;
    let lines: Vec<serde_json::Value> = serde_json::from_slice(&doctor.stdout)?;
    ensure!(lines.iter().all(|line| line["name"] != "log"), "{lines:?}");
    daemon.stop()?;
    let all = all_events(&place)?;
    ensure!(all.len() > written.len() && all.starts_with(&written), "written events are gone or changed");
    Ok(())
}

#[test]
fn what_is_lost_while_no_daemon_runs_is_told_once_by_the_next() -> Result<()> {
    let _machine = Shared::none()?;
    let place = Place::new()?;
    let mut daemon = Daemon::start(&place)?;
    let dir = work_dir()?;
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let mut shell = Shell::start(&daemon)?;
    let mut counted = Counted::new(shell.id(), &dir.path().join("load"));
    std::fs::create_dir(dir.path().join("load"))?;
    shell.say(&format!("> {}", path("before")))?;
    for event in daemon.wait_for("first file", |event| is_creation(event, &path("before")))? {
        counted.take(&event);
    }
    daemon.kill()?;

    // More than the ring has room for, between two ends of which only the first finds it.
    let load = "load --op create-unlink --files 20000 --distinct 20000 --rate max";
    let line = format!("(exit 3); aw-act --dir {} {load}; (exit 4)", path("load"));
    let truth = truth(shell.ask(&line)?.as_bytes())?;
    let mut daemon = Daemon::start(&place)?;
    let mut told = Vec::new();
    daemon.until("account of every loss", |event| {
        counted.take(&event);
        let is_enough = counted.is_all(&truth)?;
        if event.file.is_none() {
            told.push(event);
        }
        Ok(is_enough)
    })?;
    ensure!(counted.told.values().all(|told| told.lost > 0), "nothing was lost: {:?}", counted.told);
    let session = counted.session.clone().context("no session")?;
    shell.say(&format!("> {}", path("after")))?;
    let after = daemon.wait_for("second file", |event| is_creation(event, &path("after")))?;
    ensure!(after.last().is_some_and(|event| *event.session == *session), "another session");
    told.extend(after);
    let exits = |code| {
        let exits = told.iter().filter(|event| event.kind == Kind::ProcessExit);
        exits.filter(|event| event.exit.as_ref().and_then(|exit| exit.code) == Some(code)).count()
    };
    ensure!((exits(3), exits(4)) == (1, 0), "{}", json_lines(&told));
    let lost_exits =
        told.iter().filter_map(|event| event.loss.as_ref()).find(|loss| loss.kind == "process.exit");
    ensure!(lost_exits.is_some_and(|loss| loss.reason == "ring_full"), "{}", json_lines(&told));
    ensure!(!told.iter().any(|event| event.kind == Kind::SessionEnd), "{}", json_lines(&told));
    daemon.stop()?;

    // The third knows what the second told, and the session that goes on.
    let mut daemon = Daemon::start(&place)?;
    shell.end()?;
    let rest = daemon.wait_for("end of the session", |event| {
        event.kind == Kind::SessionEnd && *event.session == *session
    })?;
    ensure!(!rest.iter().any(|event| event.kind == Kind::Loss), "told twice: {}", json_lines(&rest));
    daemon.stop()
}

/// What a command prints on a terminal.
fn on_a_terminal(command: &mut Command) -> Result<Vec<u8>> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    // It must not become this program's own: that would end with it.
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_NOCTTY);
    let terminal = options.open(std::ffi::OsStr::from_bytes(name.as_bytes()))?;
    let mut child = command.env("TERM", "xterm-256color").stdout(terminal).spawn()?;
    // The command's own copies of the terminal are closed by its end, and ours here: then the reading ends.
    command.stdout(Stdio::null());
    let mut shown = Vec::new();
    match File::from(master).read_to_end(&mut shown) {
        Err(error) if error.raw_os_error() != Some(libc::EIO) => return Err(error).context("no terminal"),
        _ => {}
    }
    let status = wait(&mut child)?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(shown)
}

/// Checks that nothing of what was printed means something to a terminal but line ends and, where there may be
/// colours, these.
fn is_harmless(shown: &[u8], coloured: bool) -> Result<()> {
    let text = std::str::from_utf8(shown).context("not UTF-8 on a terminal")?;
    let mut text = text.replace("\r\n", "\n");
    if coloured {
        for colour in ["0", "1", "2", "31", "32", "33", "34", "35", "36"] {
            text = text.replace(&format!("\x1b[{colour}m"), "");
        }
    }
    let bad = |letter: &char| {
        letter.is_control() && *letter != '\n'
            || matches!(*letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    ensure!(text.chars().find(bad).is_none(), "on the terminal: {}", text.escape_debug());
    Ok(())
}

/// Checks what is stored of a session, and what is shown of it.
fn forges_nothing(daemon: &Daemon, run: &SessionRun) -> Result<()> {
    let place = daemon.place();
    for segment in std::fs::read_dir(place.state().join("log"))? {
        let text = std::fs::read(segment?.path())?;
        let text = std::str::from_utf8(&text).context("a segment is not UTF-8")?;
        ensure!(
            text.chars().all(|letter| !letter.is_ascii_control() || letter == '\n'),
            "control bytes are stored"
        );
        for line in text.lines() {
            serde_json::from_str::<Event>(line)
                .with_context(|| format!("no event: {}", line.escape_debug()))?;
        }
    }
    let own = run.own().count();
    let session = ["events", "--session", &run.session];
    let stored = place.agentwatch(session).args(["-o", "json"]).output()?.stdout;
    let lines = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    ensure!(lines(&stored) == own, "{} lines of JSON for {own} events", lines(&stored));
    for coloured in [false, true] {
        let on_terminal = |words: &[&str]| {
            let mut command = place.agentwatch(words);
            if coloured {
                command.env_remove("NO_COLOR");
            }
            let shown = on_a_terminal(&mut command)?;
            is_harmless(&shown, coloured).with_context(|| format!("{words:?}"))?;
            Ok::<_, anyhow::Error>(shown)
        };
        let compact = on_terminal(&session)?;
        ensure!(lines(&compact) == own, "{} lines for {own} events", lines(&compact));
        ensure!(compact.contains(&0x1b) == coloured, "colours are not as they should be");
        on_terminal(&[&session[..], &["-o", "json"]].concat())?;
        on_terminal(&["tree", &run.session])?;
        on_terminal(&["agents", "--all"])?;
    }
    Ok(())
}

/// Case E13.
#[test]
fn hostile_bytes_forge_neither_a_log_line_nor_a_terminal() -> Result<()> {
    Shared::with(|daemon| {
        for act in [&["odd-names"][..], &["unix-abstract-odd"], &["exec-args", "2000", "--hostile"]] {
            let run = daemon.act(act)?;
            // Without loss: what is stored means the very bytes.
            same_processes(&run)?;
            same_acts(&run)?;
            forges_nothing(daemon, &run).with_context(|| format!("{act:?}"))?;
        }
        Ok(())
    })
}

#[test]
fn a_program_with_a_hostile_name_forges_nothing() -> Result<()> {
    Shared::with(|daemon| {
        let dir = work_dir()?;
        let program = dir.path().join(std::ffi::OsStr::from_bytes(b"\x1b[2J\n{\"seq\":1}\xff\x07"));
        copy_actor(&program)?;
        let run = daemon.session([program.as_os_str(), std::ffi::OsStr::new("noop")])?;
        ensure!(run.status.success(), "it ended with {}: {}", run.status, run.stderr);
        let exec = run.of_kind(Kind::ProcessExec).last().and_then(|event| event.process.as_ref());
        let exec = exec.context("no exec")?;
        let path = bytes(&exec.executable_path, exec.executable_path_encoding)?;
        ensure!(path == Bytes::from(program.as_path()), "{path:?}");
        forges_nothing(daemon, &run)
    })
}
