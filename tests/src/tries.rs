//! What a session tries, one thing after the other, and how each attempt ended.

use std::collections::BTreeMap;

use agentwatch::event::{Event, Kind, Verdict};
use anyhow::{Context as _, Result, ensure};

use crate::compare::json_lines;
use crate::daemon::Daemon;
use crate::session::SessionRun;

const EPERM: i32 = 1;

/// Runs each piece of a list, and prints the number of the error that each ended with: 0 where it went through.
const DRIVER: &str = r#"
import ctypes, json, mmap, os, socket, struct, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)

def call(result):
    "What a function of the C library gave."
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result

def child(act):
    "Does it in a child, which a successful exec would replace."
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if ended:
        raise OSError(ended, "")

def run(*words, not_started=126):
    "Starts a program; with that status, a shell's by default, it says of another that it was not allowed to start."
    ended = subprocess.run(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    if ended:
        raise OSError(1 if ended == not_started else 200 + ended % 50, "")

def sh(script):
    run("sh", "-c", script)

errors = []
for piece in json.loads(sys.argv[1]):
    try:
        exec(piece, globals())
        errors.append(0)
    except OSError as error:
        errors.append(error.errno or 254)
print(json.dumps(errors))
"#;

/// An attempt that must fail with `EPERM`, and be told once.
pub struct Refusal {
    code: String,
    kind: Kind,
    target: String,
}

/// An attempt in Python, and its event: the kind, and what [`target_of`] gives.
pub fn refusal(code: impl Into<String>, kind: Kind, target: impl Into<String>) -> Refusal {
    Refusal { code: code.into(), kind, target: target.into() }
}

/// What an event is about, as text: a path, two (`FROM -> TO`), an address, a guarded act.
#[must_use]
pub fn target_of(event: &Event) -> String {
    if let Some(file) = &event.file {
        let to = file.path_to.as_ref().map_or_else(String::new, |to| format!(" -> {}", to.0));
        return format!("{}{to}", file.path.0);
    }
    if let Some(network) = &event.network {
        let peer = network.peer_address.as_ref().map(|peer| (&peer.0, network.peer_port));
        let local = || network.local_address.as_ref().map(|local| (&local.0, network.local_port));
        let (address, port) = match peer.or_else(local) {
            Some((address, port)) => (address.as_str(), port),
            None => ("", None),
        };
        return port.map_or_else(|| address.to_owned(), |port| format!("{address} {port}"));
    }
    event.guard.as_ref().map_or_else(String::new, |guarded| guarded.act.to_string())
}

/// Tries all of it in one session of this agent; gives the error's number of each attempt.
///
/// # Errors
/// If the session fails, or says nothing of one.
pub fn tried(daemon: &mut Daemon, agent: &str, codes: &[String]) -> Result<(Vec<i32>, SessionRun)> {
    let list = serde_json::to_string(codes)?;
    let run = daemon.run_session(daemon.exec_as(agent, ["python3", "-c", DRIVER, &list]))?;
    let printed = String::from_utf8_lossy(&run.stdout).into_owned();
    let said = || format!("{} {printed}{}", run.status, run.stderr);
    ensure!(run.status.success(), "{}", said());
    let line = printed.lines().last().with_context(said)?;
    let errors: Vec<i32> = serde_json::from_str(line).with_context(said)?;
    ensure!(errors.len() == codes.len(), "{}", said());
    Ok((errors, run))
}

/// Tries all of it in one session of this agent: each attempt fails with `EPERM` by this rule, and is told once, of
/// this session. What happened must be looked at by the caller, from outside.
///
/// # Errors
/// At what goes through, and what is told otherwise.
pub fn all_refused(daemon: &mut Daemon, agent: &str, rule: &str, tries: &[Refusal]) -> Result<SessionRun> {
    let codes: Vec<String> = tries.iter().map(|one| one.code.clone()).collect();
    let (errors, run) = tried(daemon, agent, &codes)?;
    let wrong: Vec<_> = errors.iter().zip(&codes).filter(|(errno, _)| **errno != EPERM).collect();
    let denied: Vec<&Event> = run.own().filter(|event| event.verdict == Verdict::Denied).collect();
    let said = || json_lines(denied.iter().copied());
    ensure!(wrong.is_empty(), "not refused: {wrong:#?}\n{}{}", run.stderr, said());
    let mut expected = BTreeMap::<(String, &str), u64>::new();
    for one in tries {
        *expected.entry((format!("{:?}", one.kind), &one.target)).or_default() += 1;
    }
    let targets: Vec<String> = denied.iter().map(|event| target_of(event)).collect();
    let mut told = BTreeMap::<(String, &str), u64>::new();
    for (event, target) in denied.iter().zip(&targets) {
        // Folded events stand for several.
        *told.entry((format!("{:?}", event.kind), target)).or_default() += event.count;
        let by_rule = event.rule.as_deref() == Some(rule) && event.policy.is_some();
        let whose = &*event.agent == agent && event.process.is_some() && event.reason.is_some();
        ensure!(by_rule && whose && event.errno.as_deref() == Some("EPERM"), "{}", said());
    }
    ensure!(told == expected, "told: {told:#?}\nexpected: {expected:#?}");
    Ok(run)
}
