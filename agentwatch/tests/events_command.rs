//! `agentwatch events` as a user runs it, on logs that no daemon writes.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that finds nothing must fail")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use agentwatch::event::{Event, File, Kind, ObservedText, Op, Verdict};
use agentwatch::log::{Limits, Log, folder, format_time};
use tempfile::TempDir;

const T0: u64 = 1_790_000_000_000_000_000;

fn event(seconds: u64, session: &str, path: &str) -> Event {
    Event {
        time: format_time(T0 + seconds * 1_000_000_000),
        seq: 0,
        host: "build-7".into(),
        boot_id: "1e0f4f0e-7d3c-4b1e-9f4f-6d5b3e9d2c11".into(),
        kind: Kind::FileOpen,
        op: Some(Op::Read),
        agent: session.split('-').next().unwrap().into(),
        owner: None,
        session: session.into(),
        parent_session: None,
        attribution: None,
        process: None,
        file: Some(File { path: ObservedText(path.into()), ..File::default() }),
        network: None,
        guard: None,
        cause: None,
        child: None,
        exit: None,
        loss: None,
        command: None,
        verdict: Verdict::Allowed,
        rule: None,
        reason: None,
        policy: None,
        intent: None,
        tool_call: None,
        prompt_id: None,
        prompt: None,
        outcome: None,
        span: None,
        context: None,
        errno: None,
        count: 1,
        time_last: None,
    }
}

/// A log of 100 events, one a second, of two sessions in turn, in segments of a few each.
fn log() -> (TempDir, Log) {
    let state = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 2000, ..Limits::default() };
    let (mut log, _) = Log::open(state.path(), limits).unwrap();
    for second in 0..100 {
        let session = ["coding-aaaaaa", "ops-bbbbbb"][usize::try_from(second % 2).unwrap()];
        log.append(&mut event(second, session, &format!("/srv/{second}")));
        log.flush().unwrap();
    }
    (state, log)
}

fn command(state: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentwatch"));
    command.arg("events").args(args).arg("--state").arg(state).env("TZ", "UTC").stdin(Stdio::null());
    command
}

fn run(state: &Path, args: &[&str]) -> Output {
    command(state, args).output().unwrap()
}

/// The numbers of the events that are shown.
fn seqs(state: &Path, args: &[&str]) -> Vec<u64> {
    let output = run(state, &[args, &["-o", "json"]].concat());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && errors.is_empty(), "{args:?}: {errors}");
    numbers(&String::from_utf8(output.stdout).unwrap())
}

fn numbers(text: &str) -> Vec<u64> {
    text.lines().map(|line| serde_json::from_str::<Event>(line).unwrap().seq).collect()
}

/// Exit code and what is said on the standard error.
fn refused(state: &Path, args: &[&str]) -> (i32, String) {
    let output = run(state, args);
    assert!(output.stdout.is_empty());
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn filters_choose_events() {
    let (state, _log) = log();
    let state = state.path();
    assert_eq!(seqs(state, &[]), (1..=100).collect::<Vec<_>>());
    assert_eq!(seqs(state, &["-n", "3"]), [98, 99, 100]);
    assert_eq!(seqs(state, &["-n", "0"]), [0; 0]);
    assert_eq!(seqs(state, &["--agent", "ops", "-n", "60"]).len(), 50);
    assert_eq!(seqs(state, &["--agent", "ops", "-n", "2"]), [98, 100]);
    assert_eq!(seqs(state, &["--session", "cod", "-n", "2"]), [97, 99]);
    assert_eq!(seqs(state, &["--session", "coding-aaaaaa,ops-", "-n", "2"]), [99, 100]);
    assert_eq!(seqs(state, &["--where", "file.path ~ '/srv/{7,8}'"]), [8, 9]);
    assert_eq!(seqs(state, &["--where", "seq >= 3 && seq < 5", "--op", "read"]), [3, 4]);
    assert_eq!(seqs(state, &["--kind", "net", "--kind", "loss"]), [0; 0]);
    let at = |second: u64| format_time(T0 + second * 1_000_000_000);
    assert_eq!(seqs(state, &["--since", &at(97)]), [98, 99, 100]);
    assert_eq!(seqs(state, &["--until", &at(1)]), [1, 2]);
    assert_eq!(seqs(state, &["--since", &at(50), "--until", &at(52), "--verdict", "allowed"]), [51, 52, 53]);
    assert_eq!(seqs(state, &["--since", &at(90), "--agent", "ops", "-n", "2"]), [98, 100]);
    assert_eq!(seqs(state, &["--since", &at(98), "-n", "50"]), [99, 100]);
}

#[test]
fn the_compact_form_is_the_default_and_has_no_colours_in_a_pipe() {
    let (state, _log) = log();
    let output = run(state.path(), &["-n", "1"]);
    let line = String::from_utf8(output.stdout).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(fields, ["2026-09-21T14:14:59.000+00:00", "ops-bbbbbb", "-", "read", "/srv/99", "allowed"]);
}

#[test]
fn what_cannot_be_understood_is_a_usage_error_that_says_where() {
    let (state, _log) = log();
    let state = state.path();
    for (args, said) in [
        (&["--where", "seq = 1"][..], "write `==` to compare at column 5\n  seq = 1\n      ^"),
        (&["-o", "ocsf"], "OCSF is not written yet"),
        (&["-o", "xml"], "there are the forms compact and json"),
        (&["--op", "open"], "use `--kind file.open` for this kind of event"),
        (&["--since", "soon"], "`soon` is no time"),
        (&["-f", "--until", "now"], "cannot be used with"),
        (&["--session", "x"], "no event in the log is from a session that begins with `x`"),
    ] {
        let (code, text) = refused(state, args);
        assert_eq!(code, 2, "{args:?}: {text}");
        assert!(text.contains(said), "{args:?}: {text}");
    }
}

#[test]
fn a_beginning_of_several_sessions_is_refused_with_their_names() {
    let (state, mut log) = log();
    log.append(&mut event(200, "coding-abbbbb", "/srv"));
    log.flush().unwrap();
    let (code, text) = refused(state.path(), &["--session", "coding-a"]);
    assert_eq!(code, 2);
    assert!(text.contains("(coding-aaaaaa, coding-abbbbb)"), "{text}");
}

#[test]
fn where_there_is_no_log_the_daemon_is_what_is_missing() {
    let state = tempfile::tempdir().unwrap();
    for args in [&[][..], &["-f"], &["-n", "1"], &["--session", "x"]] {
        let (code, text) = refused(state.path(), args);
        assert_eq!(code, 5, "{args:?}");
        let place = folder(state.path()).display().to_string();
        let sentence = format!("agentwatch: there is no attribution log in `{place}`: start the daemon");
        assert!(text.starts_with(&sentence), "{text}");
    }
}

#[test]
fn gaps_and_damage_are_told_where_they_are() {
    let (state, log) = log();
    drop(log);
    let mut segments: Vec<_> =
        std::fs::read_dir(folder(state.path())).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let removed = std::fs::read_to_string(&segments[1]).unwrap();
    std::fs::remove_file(&segments[1]).unwrap();
    let third = std::fs::read_to_string(&segments[2]).unwrap();
    let (first_line, rest) = third.split_once('\n').unwrap();
    let garbage = "\0".repeat(first_line.len());
    std::fs::write(&segments[2], format!("{garbage}\n{rest}")).unwrap();

    let output = run(state.path(), &["-o", "json"]);
    let (gone, damaged) = (numbers(&removed), numbers(first_line));
    let expected: Vec<u64> = (1..=100).filter(|seq| !gone.contains(seq) && !damaged.contains(seq)).collect();
    assert_eq!(numbers(&String::from_utf8(output.stdout).unwrap()), expected);
    let told = String::from_utf8(output.stderr).unwrap();
    let place = segments[2].display();
    let bytes = garbage.len() + 1;
    assert_eq!(
        told,
        format!(
            "agentwatch: {bytes} bytes of `{place}` from byte 0 on are damaged and not shown\n\
             agentwatch: events {} to {} are missing from the log here\n",
            gone[0], damaged[0]
        )
    );
}

/// A command that follows, and what it has shown line by line.
struct Following(Child, BufReader<std::process::ChildStdout>);

impl Following {
    fn start(state: &Path, args: &[&str]) -> Self {
        let mut child = command(state, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self(child, stdout)
    }

    fn seq(&mut self) -> u64 {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        numbers(&line)[0]
    }
}

#[test]
fn following_shows_the_last_ten_and_then_each_as_it_is_written_until_ended() {
    let (state, mut log) = log();
    let mut following = Following::start(state.path(), &["-f", "-o", "json"]);
    let shown: Vec<u64> = (0..10).map(|_| following.seq()).collect();
    assert_eq!(shown, (91..=100).collect::<Vec<_>>());
    for seq in 101..150 {
        log.append(&mut event(seq, "coding-aaaaaa", "/srv"));
        log.flush().unwrap();
        assert_eq!(following.seq(), seq);
    }
    let pid = rustix::process::Pid::from_child(&following.0);
    // Not SIGINT: where these tests run in the background of a shell, every program inherits that it is ignored.
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = following.0.wait().unwrap();
    assert_eq!(
        status.signal(),
        Some(rustix::process::Signal::TERM.as_raw()),
        "a shell's loop must end as well"
    );
    let mut rest = String::new();
    following.1.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn a_session_that_does_not_exist_yet_can_be_followed() {
    let (state, mut log) = log();
    let mut following = Following::start(state.path(), &["-f", "-o", "json", "--session", "new-"]);
    log.append(&mut event(100, "coding-aaaaaa", "/srv"));
    log.append(&mut event(101, "new-cccccc", "/srv"));
    log.flush().unwrap();
    assert_eq!(following.seq(), 102);
    following.0.kill().unwrap();
    following.0.wait().unwrap();
}

#[test]
fn whoever_reads_can_stop_early() {
    let (state, mut log) = log();
    // Following, with nothing more to write.
    let mut following = Following::start(state.path(), &["-f", "-o", "json"]);
    assert_eq!(following.seq(), 91);
    drop(following.1);
    assert_eq!(following.0.wait().unwrap().code(), Some(0));
    // In the middle of much output.
    let long = "x".repeat(4000);
    for second in 0..500 {
        log.append(&mut event(second, "coding-aaaaaa", &long));
    }
    log.flush().unwrap();
    let mut past = Following::start(state.path(), &["-o", "json"]);
    assert_eq!(past.seq(), 1);
    drop(past.1);
    assert_eq!(past.0.wait().unwrap().code(), Some(0));
    let mut told = String::new();
    past.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(told, "");
}

#[test]
fn help_shows_how_it_is_used() {
    let output = run(Path::new("/"), &["--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.contains("agentwatch events -f") && text.contains("--where <EXPR>"), "{text}");
}

#[test]
fn a_log_without_events_shows_nothing() {
    let state = tempfile::tempdir().unwrap();
    let limits = Limits { max_age: Duration::from_secs(1), ..Limits::default() };
    let _log = Log::open(state.path(), limits).unwrap();
    assert_eq!(seqs(state.path(), &[]), [0; 0]);
    assert_eq!(seqs(state.path(), &["-n", "5"]), [0; 0]);
}
