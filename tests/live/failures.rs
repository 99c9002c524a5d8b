//! Bad input and bad luck: what agentwatch says where it cannot work, and of hostile bytes. What begins with an empty
//! kernel is in [`crate::unloaded`].

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use agentwatch::event::{Event, Kind};
use anyhow::{Context as _, Result, ensure};
use rustix::pty::OpenptFlags;
use tests::compare::{bytes, json_lines, same_acts, same_processes};
use tests::daemon::{Daemon, Shared};
use tests::session::{SessionRun, contents, copy_actor, wait, work_dir};
use tests::truth::Bytes;

/// Checks how a command ended: its exit code, and words of its one sentence.
pub fn ended(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "{} instead of {code}: {said}", output.status);
    for word in words {
        ensure!(said.contains(word), "`{word}` is not in: {said}");
    }
    ensure!(said.lines().count() == 1, "not one sentence: {said}");
    Ok(())
}

/// What a command says that is to end by itself. A daemon that comes up instead is ended and told.
pub fn outcome(command: &mut Command) -> Result<Output> {
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let status = wait(&mut child);
    let (stdout, stderr) = (contents(&stdout)?, contents(&stderr)?);
    let status = status.with_context(|| String::from_utf8_lossy(&stderr).into_owned())?;
    Ok(Output { status, stdout, stderr })
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
    // Other tests wrote the log before, and much of it: what came since the session began is looked at.
    let first = run.own().map(|event| event.seq).min().context("it has no event")?;
    let begin = run.own().map(|event| event.time.as_str()).min().context("it has no event")?;
    let is_before = |line: &str| serde_json::from_str::<Event>(line).is_ok_and(|event| event.seq < first);
    for segment in std::fs::read_dir(place.state().join("log"))? {
        let text = std::fs::read(segment?.path())?;
        let text = std::str::from_utf8(&text).context("a segment is not UTF-8")?;
        let control = |byte: u8| byte.is_ascii_control() && byte != b'\n';
        ensure!(!text.bytes().any(control), "control bytes are stored");
        for line in text.lines().rev().take_while(|line| !is_before(line)) {
            serde_json::from_str::<Event>(line)
                .with_context(|| format!("no event: {}", line.escape_debug()))?;
        }
    }
    let own = run.own().count();
    let session = ["events", "--session", &run.session, "--since", begin];
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
