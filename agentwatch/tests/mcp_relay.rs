//! `agentwatch hook mcp` in front of servers, without a daemon: all goes through, and it ends as the server does.
#![expect(clippy::unwrap_used, reason = "a test that finds nothing must fail")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Longer than any of this takes, on a slow machine too.
const PATIENCE: Duration = Duration::from_secs(60);
const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"write","arguments":{"path":"/srv/a"}}}"#;

/// The relay in front of a shell script.
fn relay(folder: &Path, script: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_agentwatch"))
        .args(["hook", "mcp", "--", "sh", "-c", script])
        .env("AGENTWATCH_RUN", folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Gives it an input and waits for its end.
fn through(script: &str, input: Vec<u8>) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut child = relay(folder.path(), script);
    let mut stdin = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    // A server need not read all of it.
    let _ = writing.join().unwrap();
    output
}

fn pid(text: &str) -> Pid {
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

/// Waits for the end of a process that is no child.
fn gone(pid: Pid) -> bool {
    let (told, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        if let Ok(fd) = fd {
            let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
            let _ = rustix::event::poll(&mut fds, None);
        }
        let _ = told.send(());
    });
    ended.recv_timeout(PATIENCE).is_ok() && test_kill_process(pid).is_err()
        || std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
            .is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn every_byte_goes_through_both_ways() {
    let mut input = format!("{CALL}\n\nno JSON {{\n[{CALL},{CALL}]\r\n").into_bytes();
    input.extend_from_slice(b"\xff\x00\xfe\n{\"half\": ");
    input.extend_from_slice(&vec![b'x'; 3 << 20]);
    let output = through("cat", input.clone());
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == input, "{} of {} bytes", output.stdout.len(), input.len());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.matches("tool calls are not told for now").count(), 1, "{said}");
}

#[test]
fn a_line_past_the_bound_goes_through_and_that_is_said() {
    let mut input = vec![b'y'; 17 << 20];
    input.extend_from_slice(b"\nshort\n");
    let output = through("cat", input.clone());
    assert!(output.stdout == input, "{} of {} bytes", output.stdout.len(), input.len());
    assert!(String::from_utf8_lossy(&output.stderr).contains("a line of the client has more than 16 MiB"));
}

#[test]
fn messages_with_headers_are_not_held_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = relay(folder.path(), "cat");
    let message = b"Content-Length: 2\r\n\r\n{}";
    child.stdin.as_mut().unwrap().write_all(message).unwrap();
    let mut back = vec![0; message.len()];
    child.stdout.as_mut().unwrap().read_exact(&mut back).unwrap();
    assert_eq!(back, message);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn it_ends_as_its_server() {
    assert_eq!(through("echo out; echo err >&2; exit 42", Vec::new()).status.code(), Some(42));
    let output = through("echo out; echo err >&2; exit 42", Vec::new());
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    for (name, number) in [("TERM", 15), ("KILL", 9), ("USR1", 10)] {
        assert_eq!(through(&format!("kill -{name} $$"), Vec::new()).status.signal(), Some(number), "{name}");
    }
    let start = |program: &str| {
        let relay =
            Command::new(env!("CARGO_BIN_EXE_agentwatch")).args(["hook", "mcp", "--", program]).output();
        relay.unwrap().status.code()
    };
    assert_eq!((start("agentwatch-no-such-server"), start("/etc/passwd")), (Some(127), Some(126)));
}

#[test]
fn what_its_server_left_running_does_not_keep_it() {
    let output = through("sleep 100 2> /dev/null & echo $!; exit 3", Vec::new());
    assert_eq!(output.status.code(), Some(3));
    kill_process(pid(&String::from_utf8_lossy(&output.stdout)), Signal::KILL).unwrap();
}

#[test]
fn signals_reach_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap 'echo caught; exit 7' TERM; echo ready; while :; do read line; done";
    let mut child = relay(folder.path(), script);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    // The shell runs its trap once its `read` has ended.
    let _ = child.stdin.as_mut().unwrap().write_all(b"\n");
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn no_server_is_left_when_the_relay_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = relay(folder.path(), "echo $$; exec tail -f /dev/null");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let server = pid(&lines.next().unwrap().unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(gone(server));
}

#[test]
fn a_server_whose_client_does_not_read_any_more_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = relay(folder.path(), "exec yes");
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    // Its output is gone: the server gets what it would get without a relay.
    assert_eq!(child.wait().unwrap().signal(), Some(13));
}
