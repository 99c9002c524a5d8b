//! Runs the command, reaps whatever ends, and sends `/out`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, setsid, wait};

use crate::pump::Pump;

/// Runs the command to its end and gives its exit status, as a shell would: 128 and the signal
/// for a killed one, 127 for one that is not there, 126 for one that cannot be run. Whatever comes
/// through `requests` kills the command: its time is up.
pub fn run(words: &[String], stdout: File, stderr: File, requests: File) -> Result<i32, String> {
    let failed = |error: std::io::Error| format!("cannot make a pipe for the command's output: {error}");
    let (stdout, out_sink) = Pump::start(stdout).map_err(failed)?;
    let (stderr, err_sink) = Pump::start(stderr).map_err(failed)?;
    let complaints = err_sink.try_clone().map_err(failed)?;
    let code = match spawn(words, out_sink, err_sink) {
        Ok(pid) => {
            std::thread::spawn(move || kill_on_request(requests, pid));
            await_end(pid)
        }
        Err(error) => {
            complain(complaints, words, &error);
            Ok(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
        }
    };
    stdout.finish();
    stderr.finish();
    code
}

/// Kills the command and what is left of its process group.
fn kill_on_request(mut requests: File, pid: u32) {
    let asked = requests.read(&mut [0]).is_ok_and(|count| count > 0);
    let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let (true, Some(group)) = (asked, group) {
        // It may have ended just now.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn spawn(words: &[String], stdout: OwnedFd, stderr: OwnedFd) -> std::io::Result<u32> {
    let (program, arguments) = words.split_first().ok_or(std::io::ErrorKind::NotFound)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs([
            ("HOME", "/root"),
            ("LANG", "C.UTF-8"),
            ("LOGNAME", "root"),
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("SHELL", "/bin/bash"),
            ("TERM", "dumb"),
            ("USER", "root"),
        ])
        .current_dir("/root")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    // SAFETY: between fork and exec only setsid runs, one system call that touches no memory.
    unsafe { command.pre_exec(|| Ok(setsid().map(drop)?)) };
    Ok(command.spawn()?.id())
}

fn complain(sink: OwnedFd, words: &[String], error: &std::io::Error) {
    let program = words.first().map_or("", String::as_str);
    // The exit status tells the same.
    let _ = writeln!(File::from(sink), "vm: cannot run `{program}` in the guest: {error}");
}

/// Reaps until the command itself has ended. Orphans come to PID 1, so any process may turn up.
fn await_end(pid: u32) -> Result<i32, String> {
    loop {
        let (ended, status) = match wait(WaitOptions::empty()) {
            Ok(Some(one)) => one,
            Ok(None) | Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(format!("cannot wait for the command: {error}")),
        };
        if u32::try_from(ended.as_raw_nonzero().get()) != Ok(pid) {
            continue;
        }
        let signal = status.terminating_signal().map(|number| 128 + number);
        return Ok(status.exit_status().or(signal).unwrap_or(255));
    }
}

/// Sends `/out` as a tar stream.
pub fn send_out(port: File) -> Result<(), String> {
    let status = Command::new("/bin/tar").args(["-C", "/out", "-cf", "-", "."]).stdout(port).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("tar of /out ended with {status}")),
        Err(error) => Err(format!("cannot start tar for /out: {error}")),
    }
}
