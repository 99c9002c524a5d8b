//! What a policy would have decided about recorded events.

use std::net::IpAddr;

use super::address::{Transport, Unix};
use super::implicit::CHANGES_AND_ASKS;
use super::{Address, By, Decision, Mode, Operation, Policy, Target};
use crate::event::bytes::decode;
use crate::event::{Encoding, Event, File, Kind, Network, ObservedText, Op, Process, Verdict};
use crate::matcher::command_text;

/// Bytes of arguments of which the kernel decides by the whole command line.
const COMMAND_BYTES: usize = agentwatch_common::limits::MATCH_COMMAND_BYTES as usize;

/// What would be decided now about something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// What decides: of several operations of one event the one that is decided about most strictly.
    pub operation: PastOperation,
    /// What would come of it.
    pub verdict: Verdict,
    /// The rule; `default`, `plan` or `undecided` where none decides, nothing where nothing does.
    pub rule: Option<String>,
}

/// One operation of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PastOperation {
    /// What was tried.
    pub op: Op,
    /// On what, as far as it was recorded.
    pub target: PastTarget,
    /// Whether the agent's default counts, or only rules: for what is looked at in passing.
    by_default: bool,
}

impl PastOperation {
    /// Whether it was asked for, and not looked at in passing.
    #[must_use]
    pub const fn is_asked_for(&self) -> bool {
        self.by_default
    }
}

/// On what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PastTarget {
    /// All of it is known.
    Whole(Target),
    /// Only this is known: where rules are enforced, the kernel refuses what it cannot look at whole.
    Partial(String),
}

impl Policy {
    /// What would be decided about an event at its time, in nanoseconds since 1970. Nothing where it is no operation.
    #[must_use]
    pub fn decide_past(&self, agent: &str, operations: &[PastOperation], when_ns: u64) -> Option<Now> {
        let mut strictest: Option<Now> = None;
        for operation in operations {
            let now = self.decide_one(agent, operation, when_ns);
            if strictest.as_ref().is_none_or(|before| now.verdict > before.verdict) {
                strictest = Some(now);
            }
        }
        strictest
    }

    fn decide_one(&self, agent: &str, operation: &PastOperation, when_ns: u64) -> Now {
        let target = match &operation.target {
            PastTarget::Whole(target) => target.clone(),
            PastTarget::Partial(_) => return self.undecided(agent, operation),
        };
        let asked = Operation { op: operation.op, target };
        let decision = self.decide(agent, &asked, when_ns);
        let by_more_than_default = matches!(decision.by, By::Rule { .. } | By::Protection(_));
        let counts = operation.by_default || by_more_than_default;
        Now {
            operation: operation.clone(),
            verdict: if counts { decision.verdict } else { Verdict::Allowed },
            rule: name_of(&decision).filter(|_| counts),
        }
    }

    /// What comes of something that cannot be looked at whole: a refusal where the policy says anything of its kind.
    fn undecided(&self, agent: &str, operation: &PastOperation) -> Now {
        let index = self.agents.iter().position(|one| one.spec.name == agent);
        let declared = index.and_then(|index| self.agents.get(index));
        let is_for = |agents: &Vec<usize>| index.is_some_and(|index| agents.contains(&index));
        let by_rule = self
            .rules
            .iter()
            .any(|rule| rule.scope.has(operation.op) && rule.agents.as_ref().is_none_or(is_for));
        let mode = declared.map_or(super::MODE_UNDECLARED, |agent| agent.spec.mode);
        // Of all that are judged something is protected from these.
        let protects = mode != Mode::Observe && CHANGES_AND_ASKS.contains(&operation.op);
        let speaks =
            by_rule || protects || declared.is_some_and(|agent| agent.default_for(operation.op).is_some());
        let verdict = match mode {
            Mode::Plan => Verdict::Denied,
            _ if !speaks => Verdict::Allowed,
            Mode::Observe => Verdict::Allowed,
            Mode::Recommend => Verdict::WouldDeny,
            Mode::Approve | Mode::Enforce => Verdict::Denied,
        };
        let rule = (verdict > Verdict::Allowed).then(|| "undecided".to_owned());
        Now { operation: operation.clone(), verdict, rule }
    }
}

fn name_of(decision: &Decision<'_>) -> Option<String> {
    match decision.by {
        By::Rule { rule, .. } => Some(rule.name.clone()),
        By::Default => Some("default".to_owned()),
        By::Plan => Some("plan".to_owned()),
        By::Protection(protection) => Some(protection.rule_name()),
        By::Nothing | By::Open => None,
    }
}

/// The operations that the kernel decides about where this event happens; none where it is no operation.
#[must_use]
pub fn operations_of(event: &Event) -> Vec<PastOperation> {
    match event.kind {
        Kind::ProcessExec => exec(event),
        Kind::NetConnect | Kind::NetSend | Kind::NetReceive => address(event, Op::Connect),
        Kind::NetBind | Kind::NetListen => address(event, Op::Listen),
        kind => event.file.as_ref().map_or_else(Vec::new, |file| file_operations(kind, file)),
    }
}

fn file_operations(kind: Kind, file: &File) -> Vec<PastOperation> {
    let first = || path_of(file);
    let second = || second_path_of(file);
    let has = |flag: &str| file.flags.as_deref().is_some_and(|flags| flags.split('|').any(|one| one == flag));
    let asked = |op, target| PastOperation { op, target, by_default: true };
    let by_rule = |op, target| PastOperation { op, target, by_default: false };
    match kind {
        Kind::FileOpen | Kind::FileReceive => {
            let (writes, truncates) = (!has("O_RDONLY"), has("O_TRUNC"));
            let ops =
                [(Op::Read, !has("O_WRONLY")), (Op::Write, writes || truncates), (Op::Delete, truncates)];
            ops.into_iter().filter(|(_, is_asked)| *is_asked).map(|(op, _)| asked(op, first())).collect()
        }
        Kind::FileCreate
        | Kind::FileMkdir
        | Kind::FileSymlink
        | Kind::FileMode
        | Kind::FileOwner
        | Kind::FileXattr
        | Kind::FileTimes
        | Kind::FileFlags => vec![asked(Op::Write, first())],
        Kind::FileDelete | Kind::FileRmdir => vec![asked(Op::Delete, first())],
        Kind::FileTruncate => vec![asked(Op::Write, first()), asked(Op::Delete, first())],
        Kind::FileRename => {
            let mut found = vec![asked(Op::Delete, first()), asked(Op::Write, second())];
            if has("RENAME_EXCHANGE") {
                found.push(asked(Op::Write, first()));
            }
            // Whether there was something at the other place is not recorded.
            if !has("RENAME_NOREPLACE") {
                found.push(asked(Op::Delete, second()));
            }
            found
        }
        Kind::FileLink => vec![
            asked(Op::Write, first()),
            by_rule(Op::Read, first()),
            by_rule(Op::Exec, first()),
            by_rule(Op::Delete, first()),
            asked(Op::Write, second()),
        ],
        Kind::FileMap => vec![by_rule(Op::Exec, first())],
        _ => Vec::new(),
    }
}

/// As the kernel walks it: to the root of the process's own mount namespace.
fn path_of(file: &File) -> PastTarget {
    let path = file.container_path.as_ref().unwrap_or(&file.path);
    let cut = file.path_truncated || file.root.as_ref().is_some_and(|root| root.starts_with("dev:"));
    path_target(path, file.path_encoding, cut)
}

fn second_path_of(file: &File) -> PastTarget {
    match &file.path_to {
        Some(path) => path_target(path, file.path_to_encoding, file.path_truncated),
        None => PastTarget::Partial("a path that was not recorded".to_owned()),
    }
}

fn path_target(text: &ObservedText, encoding: Option<Encoding>, truncated: bool) -> PastTarget {
    match decode(text, encoding.is_some()) {
        Ok(path) if !truncated && path.starts_with(b"/") => PastTarget::Whole(Target::Path(path)),
        _ => PastTarget::Partial(text.0.clone()),
    }
}

/// The program, and the command line; of an exec that was refused what was refused.
fn exec(event: &Event) -> Vec<PastOperation> {
    let asked = |op, target| PastOperation { op, target, by_default: true };
    match (&event.file, event.op) {
        (Some(_), Some(Op::Run)) => {
            let line = event.command.as_ref().map_or_else(String::new, |command| command.0.clone());
            vec![asked(Op::Run, PastTarget::Whole(Target::Command(line.into_bytes())))]
        }
        (Some(file), _) => vec![asked(Op::Exec, path_of(file))],
        (None, _) => {
            let Some(process) = &event.process else { return Vec::new() };
            let program = path_target(&process.executable_path, process.executable_path_encoding, false);
            let command = command_of(process, &program);
            vec![asked(Op::Exec, program), asked(Op::Run, command)]
        }
    }
}

fn command_of(process: &Process, program: &PastTarget) -> PastTarget {
    let encoded = process.command_args_encoding.is_some();
    let args: Result<Vec<Vec<u8>>, _> = process.command_args.iter().map(|arg| decode(arg, encoded)).collect();
    let whole = |args: &Vec<Vec<u8>>| {
        let bytes: usize = args.iter().map(|arg| arg.len() + 1).sum();
        !process.command_args_truncated || bytes > COMMAND_BYTES
    };
    match (args, program) {
        (Ok(args), PastTarget::Whole(Target::Path(program))) if whole(&args) => {
            let line = command_text(program, args.iter().map(Vec::as_slice));
            PastTarget::Whole(Target::Command(line))
        }
        _ => {
            let words = process.command_args.iter().map(|arg| arg.0.as_str());
            PastTarget::Partial(words.collect::<Vec<_>>().join(" "))
        }
    }
}

fn address(event: &Event, op: Op) -> Vec<PastOperation> {
    let Some(network) = &event.network else { return Vec::new() };
    let (text, encoding, port) = match op {
        Op::Connect => (&network.peer_address, network.peer_address_encoding, network.peer_port),
        _ => (&network.local_address, network.local_address_encoding, network.local_port),
    };
    // A port that the kernel chooses is looked at when somebody listens there.
    if event.kind == Kind::NetBind && port == Some(0) {
        return Vec::new();
    }
    let Some(text) = text else { return Vec::new() };
    let target = match target_of(network, text, encoding, port) {
        Some(address) => PastTarget::Whole(Target::Address(address)),
        None => PastTarget::Partial(text.0.clone()),
    };
    vec![PastOperation { op, target, by_default: true }]
}

fn target_of(
    network: &Network,
    text: &ObservedText,
    encoding: Option<Encoding>,
    port: Option<u32>,
) -> Option<Address> {
    match network.transport.as_str() {
        "unix" => {
            let name = decode(text, encoding.is_some()).ok()?;
            Some(Address::Unix(match name.strip_prefix(b"@") {
                Some(name) => Unix::Abstract(name.to_vec()),
                None => Unix::Path(name),
            }))
        }
        "vsock" => Some(Address::Vsock { cid: text.0.parse().ok()?, port: port? }),
        transport => {
            let transport = match transport {
                "tcp" => Transport::Tcp,
                "udp" => Transport::Udp,
                _ => Transport::Other,
            };
            let ip: IpAddr = text.0.parse().ok()?;
            let port = port?.try_into().ok()?;
            let names = network.peer_name.iter().map(|name| name.to_string()).collect();
            Some(Address::Ip { transport, ip: Some(ip), port, names })
        }
    }
}
