//! On random policies the kernel decides about random system calls as the reference evaluator does.

use std::collections::BTreeSet;
use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use agentwatch::event::{Op, Verdict};
use agentwatch::policy::{Action, By, Context, Decision, Operation, Policy, Source, Users, policy_of};
use anyhow::{Context as _, Result, ensure};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tests::daemon::Daemon;
use tests::policy::{apply, with_policy};

use crate::enforcement::session;

/// All that the policies are about lies here.
const ROOT: &str = "/srv/aw-random";
/// Another name of it, of which no policy knows.
const LINK: &str = "/srv/aw-random-link";
/// What is to be done, for the script.
const CALLS: &str = "/srv/aw-random-calls";
const NAMES: [&str; 3] = ["a", "b", "ab"];
/// What is tried on the network: nobody listens there, but by the last, without which nobody asks whether it may be
/// reached.
const ADDRESSES: [&str; 6] =
    ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.2:7001", "[::1]:7001", "udp:127.0.0.1:7001", "unix:@aw-ab"];
const LISTENED: [&str; 3] = ["127.0.0.1:7003", "127.0.0.2:7003", "[::1]:7004"];
/// So many policies; `PROPTEST_CASES` asks for more.
const CASES: u32 = 8;

/// Does each thing in a process of its own, and prints how that ended: an errno, or the number of a signal below zero.
const SCRIPT: &str = r#"
import json, os, socket, sys
def connect(kind, address):
    if address.startswith("unix:@"): return socket.socket(socket.AF_UNIX).connect("\0" + address[6:])
    if address.startswith("/"): return socket.socket(socket.AF_UNIX).connect(address)
    host, port = address.removeprefix("udp:").rsplit(":", 1)
    s = socket.socket(socket.AF_INET6 if "[" in host else socket.AF_INET, kind)
    to = (host.strip("[]"), int(port))
    return s, to
def act(call, target, words):
    if call == "read": os.open(target, os.O_RDONLY)
    elif call == "write": os.open(target, os.O_WRONLY)
    elif call == "create": os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    elif call == "mkdir": os.mkdir(target)
    elif call == "delete": os.unlink(target)
    elif call == "exec": os.execv(target, words)
    elif call == "listen":
        s, to = connect(socket.SOCK_STREAM, target)
        s.bind(to); s.listen()
    elif target.startswith("udp:"):
        s, to = connect(socket.SOCK_DGRAM, target)
        s.sendto(b"x", to)
    elif target.startswith(("/", "unix:")): connect(None, target)
    else:
        s, to = connect(socket.SOCK_STREAM, target)
        s.connect(to)
ends = []
for call, target, words in json.load(open(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        code = 0
        try: act(call, target, words)
        except OSError as error: code = error.errno
        os._exit(code)
    status = os.waitpid(pid, 0)[1]
    ends.append(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
print(json.dumps(ends))
"#;

/// A system call that is tried.
#[derive(Clone, Debug)]
struct Call {
    /// What the script calls it.
    name: &'static str,
    /// On what: a path below [`ROOT`], or an address.
    target: String,
    /// How it is called, where that is not the target.
    spelled: Option<String>,
    /// Arguments of a program.
    words: Vec<String>,
}

impl Call {
    fn new(name: &'static str, target: impl Into<String>) -> Self {
        Self { name, target: target.into(), spelled: None, words: Vec::new() }
    }

    /// What rules are asked about, in this order: the next only where the one before lets it through.
    fn operations(&self) -> Result<Vec<Operation>> {
        let parse = |op, text: &str| Operation::parse(op, text).map_err(anyhow::Error::msg);
        let op = match self.name {
            "read" => Op::Read,
            "write" | "create" | "mkdir" => Op::Write,
            "delete" => Op::Delete,
            "listen" => Op::Listen,
            "connect" => Op::Connect,
            _ => {
                let base = self.target.rsplit('/').next().unwrap_or_default();
                let line = [&[base.to_owned()], self.words.get(1..).unwrap_or_default()].concat().join(" ");
                return Ok(vec![parse(Op::Exec, &self.target)?, parse(Op::Run, &line)?]);
            }
        };
        Ok(vec![parse(op, &self.target)?])
    }

    /// How it ends where nothing is refused.
    fn end(&self) -> i32 {
        let is_answered = self.name != "connect" || self.target.starts_with(['/', 'u']);
        if is_answered { 0 } else { libc::ECONNREFUSED }
    }
}

/// What must come of a call: how it ends, and what is told of it, if it is judged to be more than allowed.
#[derive(Debug)]
struct Outcome {
    end: i32,
    told: Option<(Verdict, String)>,
    /// Two events tell it.
    twice: bool,
}

fn expected(policy: &Policy, agent: &str, call: &Call, now_ns: u64) -> Result<Outcome> {
    // A file that is made is opened as well, and a socket is bound before it listens.
    let twice = matches!(call.name, "create" | "listen");
    let mut outcome = Outcome { end: call.end(), told: None, twice };
    for operation in call.operations()? {
        let decision = policy.decide(agent, &operation, now_ns);
        let told = told_of(&decision);
        // A program that is only told of is mapped as well.
        outcome.twice |= operation.op == Op::Exec && decision.verdict == Verdict::WouldDeny;
        if told.as_ref().is_some_and(|told| outcome.told.as_ref().is_none_or(|before| told.0 > before.0)) {
            outcome.told = told;
        }
        if agent == "e" && decision.action >= Action::Ask {
            // A command line is known only when the old program is gone.
            let is_killed = decision.action == Action::Kill || operation.op == Op::Run;
            outcome.end = if is_killed { -libc::SIGKILL } else { libc::EPERM };
            outcome.twice = false;
            break;
        }
    }
    Ok(outcome)
}

/// Verdict and rule, as an event has them.
fn told_of(decision: &Decision<'_>) -> Option<(Verdict, String)> {
    let rule = match decision.by {
        By::Rule { rule, .. } => rule.name.clone(),
        By::Default => "default".to_owned(),
        By::Plan | By::Protection(_) | By::Open | By::Nothing => return None,
    };
    let verdict = if decision.verdict == Verdict::Held { Verdict::Denied } else { decision.verdict };
    (verdict != Verdict::Allowed).then_some((verdict, rule))
}

/// Makes the files and sockets anew; gives the sockets, which are to be kept.
fn tree() -> Result<Vec<UnixListener>> {
    let _ = fs::remove_dir_all(ROOT);
    let _ = fs::remove_file(LINK);
    let mut sockets = Vec::new();
    for folder in NAMES {
        let folder = Path::new(ROOT).join(folder);
        fs::create_dir_all(&folder)?;
        for name in NAMES {
            fs::copy("/usr/bin/true", folder.join(name))?;
        }
        sockets.push(UnixListener::bind(folder.join("s"))?);
    }
    sockets.push(UnixListener::bind_addr(&SocketAddr::from_abstract_name("aw-ab")?)?);
    std::os::unix::fs::symlink(ROOT, LINK)?;
    Ok(sockets)
}

/// All that is tried under each policy, spelled in one of several ways: what takes something away comes last.
fn calls(spelling: &[u8], words: &[Vec<&str>]) -> Vec<Call> {
    let (mut calls, mut removals) = (Vec::new(), Vec::new());
    for folder in NAMES {
        let folder = format!("{ROOT}/{folder}");
        calls.push(Call::new("read", &folder));
        for name in NAMES {
            let file = format!("{folder}/{name}");
            calls.extend(["read", "write", "exec"].map(|call| Call::new(call, &file)));
            removals.push(Call::new("delete", file));
        }
        calls.push(Call::new("create", format!("{folder}/new")));
        calls.push(Call::new("mkdir", format!("{folder}/aab")));
        calls.push(Call::new("connect", format!("{folder}/s")));
    }
    calls.extend(ADDRESSES.map(|address| Call::new("connect", address)));
    calls.extend(LISTENED.map(|address| Call::new("listen", address)));
    calls.append(&mut removals);
    for ((call, spelling), words) in calls.iter_mut().zip(spelling.iter().cycle()).zip(words.iter().cycle()) {
        if call.name == "exec" {
            call.words = [&["x"], words.as_slice()].concat().into_iter().map(str::to_owned).collect();
        }
        if let Some(rest) = call.target.strip_prefix(ROOT) {
            call.spelled = match spelling {
                0 => Some(format!("{LINK}{rest}")),
                1 => Some(format!("{ROOT}/a/..{rest}")),
                2 => Some(format!("/proc/self/root{ROOT}/.{rest}")),
                _ => None,
            };
        }
    }
    calls
}

/// Brings a policy into force and tries everything under it, as both agents.
fn hold(daemon: &mut Daemon, text: &str, calls: &[Call]) -> Result<()> {
    let source = Source { name: "policy.yaml".into(), text: text.to_owned() };
    let now_ns = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
    let context = Context { users: &Users::default(), now_ns };
    let (policy, _) = policy_of(vec![source], context).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    apply(daemon, text)?;
    let list: Vec<_> = calls
        .iter()
        .map(|call| (call.name, call.spelled.as_ref().unwrap_or(&call.target), &call.words))
        .collect();
    fs::write(CALLS, serde_json::to_vec(&list)?)?;
    let script = format!("exec python3 -BIS -c '{SCRIPT}' {CALLS}");
    for agent in ["e", "r"] {
        let _sockets = tree()?;
        let run = session(daemon, agent, &script)?;
        ensure!(run.status.success(), "the script failed: {}", run.stderr);
        let ends: Vec<i32> = serde_json::from_slice(&run.stdout).context("the script printed no list")?;
        ensure!(ends.len() == calls.len(), "{} of {} calls", ends.len(), calls.len());
        let mut wanted = Vec::new();
        for (call, end) in calls.iter().zip(ends) {
            let outcome = expected(&policy, agent, call, now_ns)?;
            ensure!(outcome.end == end, "{agent}: {call:?} ended with {end} and not {}", outcome.end);
            wanted.extend(outcome.told.clone().filter(|_| outcome.twice));
            wanted.extend(outcome.told);
        }
        let told: Vec<(Verdict, String)> = run
            .own()
            .filter(|event| event.verdict != Verdict::Allowed)
            .map(|event| (event.verdict, event.rule.as_deref().unwrap_or_default().to_owned()))
            .collect();
        ensure!(told == wanted, "{agent}: told {told:?}, and not {wanted:?}, of {calls:?}");
        let versions: BTreeSet<_> =
            run.own().filter_map(|event| event.policy.as_ref().map(|policy| policy.version)).collect();
        ensure!(versions.len() <= 1, "judged by policies {versions:?}");
    }
    Ok(())
}

fn path_pattern() -> impl Strategy<Value = String> {
    let name =
        prop::sample::select(vec!["a", "b", "ab", "*", "a*", "?", "**", "[ab]", "{a,b}", "*b", "s", "new"]);
    prop::collection::vec(name, 1..3).prop_map(|names| format!("{ROOT}/{}", names.join("/")))
}

fn command_pattern() -> impl Strategy<Value = String> {
    let head = prop::sample::select(vec!["a", "b", "ab", "{a,b}", "[ab]*"]);
    let rest = prop::sample::select(vec!["", " *", " x", " * y", " x*", "*y*"]);
    (head, rest).prop_map(|(head, rest)| format!("{head}{rest}"))
}

fn address_pattern() -> impl Strategy<Value = String> {
    let hosts = vec!["*", "127.0.0.0/30", "127.0.0.1", "udp:127.0.0.1", "tcp:127.0.0.0/8", "[::1]", "[::]/0"];
    let ports = prop::sample::select(vec!["*", "7001", "7000-7002", "7002,7003", "7003-7004"]);
    let ip = (prop::sample::select(hosts), ports).prop_map(|(host, ports)| format!("{host}:{ports}"));
    let name = prop::sample::select(vec!["unix:@aw-*", "unix:@aw-a?", "unix:@aw-a"]).prop_map(str::to_owned);
    prop_oneof![4 => ip, 1 => name, 2 => path_pattern()]
}

fn scope() -> impl Strategy<Value = String> {
    let list = |patterns: Vec<String>| {
        let quoted: Vec<String> = patterns.iter().map(|one| format!("\"{one}\"")).collect();
        quoted.join(", ")
    };
    let paths = prop::collection::vec(path_pattern(), 1..3).prop_map(list);
    let commands = prop::collection::vec(command_pattern(), 1..3).prop_map(list);
    let addresses = prop::collection::vec(address_pattern(), 1..3).prop_map(list);
    let ops = prop::sample::subsequence(vec!["exec", "read", "write", "delete"], 0..4);
    let nets = prop::sample::subsequence(vec!["connect", "listen"], 0..3);
    (ops, paths, prop::option::weighted(0.4, commands), nets, addresses)
        .prop_filter("about nothing", |(ops, _, run, nets, _)| {
            !ops.is_empty() || run.is_some() || !nets.is_empty()
        })
        .prop_map(|(ops, paths, run, nets, addresses)| {
            let mut parts: Vec<String> = ops.iter().map(|op| format!("{op}: [{paths}]")).collect();
            parts.extend(run.map(|commands| format!("run: [{commands}]")));
            parts.extend(nets.iter().map(|op| format!("{op}: [{addresses}]")));
            format!("{{{}}}", parts.join(", "))
        })
}

fn rule() -> impl Strategy<Value = String> {
    (
        prop::sample::select(vec!["allow", "log", "ask", "deny", "deny", "kill"]),
        scope(),
        prop::option::weighted(0.3, scope()),
        prop::option::weighted(0.3, prop::sample::select(vec!["[e]", "[r]", "[e, r]"])),
        prop::option::weighted(0.3, prop::sample::select(vec!["past", "present"])),
    )
        .prop_map(|(action, scope, unless, agents, during)| {
            let unless = unless.map(|unless| format!(", unless: {unless}")).unwrap_or_default();
            let agents = agents.map(|agents| format!(", agents: {agents}")).unwrap_or_default();
            let during = during.map(|during| format!(", during: {during}")).unwrap_or_default();
            format!("{action}: {scope}{unless}{agents}{during}")
        })
}

/// Defaults of operations that neither the script nor the loader needs for itself.
fn defaults() -> impl Strategy<Value = String> {
    let default = (
        prop::sample::select(vec!["write", "delete", "connect", "listen"]),
        prop::sample::select(vec!["log", "ask", "deny", "kill"]),
    );
    prop::option::weighted(0.4, default)
        .prop_map(|one| one.map(|(op, action)| format!(", default: {{{op}: {action}}}")).unwrap_or_default())
}

fn policy() -> impl Strategy<Value = String> {
    (defaults(), prop::collection::vec(rule(), 1..7)).prop_map(|(defaults, rules)| {
        let rules: String =
            rules.iter().enumerate().map(|(n, rule)| format!("  - {{name: r{n}, {rule}}}\n")).collect();
        format!(
            "version: 1\nagents:\n  e: {{owner: o, mode: enforce{defaults}}}\n  r: {{owner: o, mode: recommend{defaults}}}\n\
             windows:\n  past: {{from: 2020-01-01T00:00:00Z, to: 2020-02-01T00:00:00Z}}\n  present: {{from: \
             2020-01-01T00:00:00Z, to: 2200-01-01T00:00:00Z}}\nrules:\n{rules}"
        )
    })
}

#[test]
fn the_kernel_decides_as_the_reference_evaluator_does() -> Result<()> {
    let words = prop::collection::vec(prop::sample::subsequence(vec!["x", "y", "xy"], 0..3), 1..5);
    let inputs = (policy(), prop::collection::vec(0..5_u8, 1..8), words);
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let config = Config {
        cases: asked.unwrap_or(CASES),
        failure_persistence: None,
        max_shrink_iters: 24,
        ..Config::default()
    };
    with_policy("version: 1\nagents:\n  e: {owner: o}\n", |daemon| {
        let daemon = std::cell::RefCell::new(daemon);
        let result = TestRunner::new(config).run(&inputs, |(text, spelling, words)| {
            let calls = calls(&spelling, &words);
            hold(&mut daemon.borrow_mut(), &text, &calls)
                .map_err(|error| TestCaseError::fail(format!("{error:#}\n{text}")))
        });
        result.map_err(|error| anyhow::anyhow!("{error}"))
    })
}

#[test]
fn of_asking_and_denying_one_address_the_denial_is_named() -> Result<()> {
    // The kernel tells the two apart, though both are refusals: the stricter one is named, wherever it stands.
    let text = "version: 1
agents:
  e: {owner: o, mode: enforce}
  r: {owner: o, mode: recommend}
rules:
  - {name: asks, ask: {connect: ['127.0.0.1:7001']}}
  - {name: denies, deny: {connect: ['*:7001']}}
";
    let calls = ["127.0.0.1:7001", "127.0.0.2:7001", "127.0.0.1:7002"].map(|to| Call::new("connect", to));
    with_policy("version: 1\nagents:\n  e: {owner: o}\n", |daemon| hold(daemon, text, &calls))
}
