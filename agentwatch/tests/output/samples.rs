//! An event of each kind.

use std::sync::Arc;

use agentwatch::event::{
    Alignment, CallBy, Cause, Check, Child, Context, Encoding, Event, Exit, File, Guarded, How, IntentRef,
    Kind, Loss, Network, ObservedText, Op, Outcome, PolicyVersion, Process, SpanRef, ToolCallRef, UsedBy,
    Verdict,
};

fn text(text: &str) -> ObservedText {
    ObservedText(text.to_owned())
}

/// An event without any field that may be absent.
fn bare(seq: u64, kind: Kind) -> Event {
    Event {
        time: format!("2026-11-21T03:37:12.{seq:03}456789Z"),
        seq,
        host: "build-7".into(),
        boot_id: "1e0f4f0e-7d3c-4b1e-9f4f-6d5b3e9d2c11".into(),
        kind,
        op: None,
        agent: "".into(),
        owner: None,
        session: "".into(),
        parent_session: None,
        attribution: None,
        process: None,
        file: None,
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

pub fn of_session(seq: u64, kind: Kind, op: Option<Op>) -> Event {
    Event {
        op,
        agent: "coding".into(),
        session: "coding-7f3k2q".into(),
        attribution: Some(How::Matched),
        process: Some(Process {
            pid: 4242,
            start_time: 8_123_456_789,
            ppid: Some(4200),
            executable_path: text("/usr/bin/git"),
            command_args: [text("git"), text("push")].into(),
            uid: Some(1000),
            cwd: text("/home/ada/work"),
            ..Process::default()
        }),
        ..bare(seq, kind)
    }
}

fn of_file(seq: u64, kind: Kind, op: Op, file: File) -> Event {
    Event { file: Some(file), ..of_session(seq, kind, Some(op)) }
}

pub fn at(path: &str) -> File {
    File { path: text(path), device: "259:2".into(), inode: Some(1_311_234), ..File::default() }
}

/// An event with every field there is. A field that is new in the model must be added here, so that the
/// compiler reminds of [`FIELDS`].
fn full(seq: u64) -> Event {
    Event {
        time: "2026-11-21T03:37:12.000000001Z".into(),
        seq,
        host: "build-7".into(),
        boot_id: "1e0f4f0e-7d3c-4b1e-9f4f-6d5b3e9d2c11".into(),
        kind: Kind::FileRename,
        op: Some(Op::Delete),
        agent: "coding".into(),
        owner: Some("developer-platform@example.com".into()),
        session: "coding-7f3k2q".into(),
        parent_session: Some("ops-a1b2c3".into()),
        attribution: Some(How::Launched),
        process: Some(Process {
            pid: 4242,
            tid: Some(4243),
            start_time: 8_123_456_789,
            ppid: Some(4200),
            executable_path: text("/usr/bin/%FFmv"),
            executable_path_encoding: Some(Encoding::Percent),
            command_args: [text("%FFmv"), text("a"), text("b")].into(),
            command_args_encoding: Some(Encoding::Percent),
            command_args_truncated: true,
            uid: Some(1000),
            cwd: text("/home/%FF"),
            cwd_encoding: Some(Encoding::Percent),
            container_id: Some("c0ffee".into()),
        }),
        file: Some(File {
            path: text("deep/%FF/a%20b"),
            path_encoding: Some(Encoding::Percent),
            path_truncated: true,
            root: Some("mnt:[4026532301]".into()),
            container_path: Some(text("/work/%FD")),
            container_path_encoding: Some(Encoding::Percent),
            path_to: Some(text("/tmp/%FE")),
            path_to_encoding: Some(Encoding::Percent),
            argument: Some(text("user.%FC")),
            argument_encoding: Some(Encoding::Percent),
            deleted: true,
            device: "259:2".into(),
            inode: Some(12),
            flags: Some("RENAME_EXCHANGE".into()),
            mode: Some("0644".into()),
            uid: Some(0),
            gid: Some(0),
            size: Some(0),
        }),
        network: Some(Network {
            transport: "unix".into(),
            family: "unix".into(),
            peer_address: Some(text("/run/%FF")),
            peer_address_encoding: Some(Encoding::Percent),
            peer_port: Some(1),
            peer_name: Some("db.example.com".into()),
            local_address: Some(text("@%FF")),
            local_address_encoding: Some(Encoding::Percent),
            local_port: Some(2),
        }),
        guard: None,
        cause: Some(Arc::new(Cause {
            path: text("/srv/%FFjob.sh"),
            path_encoding: Some(Encoding::Percent),
            by: UsedBy::Asked,
            others: true,
            session: "coding-7f3k2q".into(),
            agent: "coding".into(),
            owner: Some("developer-platform@example.com".into()),
            tool_call: Some(ToolCallRef { id: "toolu_1".into(), ..tool_call(Some(CallBy::Process)) }),
            prompt_id: Some("p-1".into()),
            intent: Some("int-1".into()),
            policy: Some(PolicyVersion { version: 7, hash: "0a".into() }),
            rule: Some("r".into()),
            time: Some("2026-11-21T03:37:12.000000001Z".into()),
            seq: Some(1),
            cause: None,
        })),
        child: None,
        exit: None,
        loss: None,
        command: None,
        verdict: Verdict::WouldDeny,
        rule: Some("keep away from production".into()),
        reason: Some("the rule `keep away from production` covers it".into()),
        policy: Some(PolicyVersion { version: 7, hash: "0a1b2c".into() }),
        intent: Some(IntentRef::of(&"int-4n5m6p".into(), Alignment::Outside)),
        tool_call: Some(ToolCallRef {
            parent: Some("toolu_00".into()),
            input: Some(r#"{"command":"mv a b"}"#.into()),
            ..tool_call(Some(CallBy::Process))
        }),
        prompt_id: Some("p-17".into()),
        prompt: Some("tidy up".into()),
        outcome: Some(outcome()),
        span: Some(Box::new(span())),
        context: Some(Box::new(context())),
        errno: Some("EPERM".into()),
        count: 12,
        time_last: Some("2026-11-21T03:37:13.000000001Z".into()),
    }
}

fn context() -> Context {
    Context { source: Some("runbooks".into()), documents: vec!["doc_1".into(), "doc_2".into()], count: 2 }
}

fn span() -> SpanRef {
    SpanRef {
        trace_id: "5b8efff798038103d269b633813fc60c".into(),
        id: "eee19b7ec3c1b174".into(),
        parent: Some("eee19b7ec3c1b173".into()),
        start: "2026-11-21T05:08:17.893446Z".into(),
        end: "2026-11-21T05:08:18.893446Z".into(),
        conversation: Some("conv_1".into()),
        error: Some("timeout".into()),
    }
}

fn tool_call(by: Option<CallBy>) -> ToolCallRef {
    ToolCallRef { id: "toolu_01".into(), name: "Bash".into(), parent: None, by, input: None }
}

fn outcome() -> Outcome {
    Outcome {
        reported: Some("success".into()),
        output: Some("moved".into()),
        operations: 12,
        writes: 3,
        denied: 1,
    }
}

fn network(
    peer: Option<(&str, Option<u32>)>,
    local: Option<(&str, Option<u32>)>,
    transport: &str,
) -> Network {
    Network {
        transport: transport.into(),
        family: "ipv4".into(),
        peer_address: peer.map(|(address, _)| text(address)),
        peer_port: peer.and_then(|(_, port)| port),
        local_address: local.map(|(address, _)| text(address)),
        local_port: local.and_then(|(_, port)| port),
        ..Network::default()
    }
}

fn of_network(seq: u64, kind: Kind, network: Network) -> Event {
    Event { network: Some(network), ..of_session(seq, kind, Some(Op::Connect)) }
}

fn said(seq: u64, kind: Kind, reason: &str) -> Event {
    Event { reason: Some(reason.into()), ..bare(seq, kind) }
}

fn processes() -> Vec<Event> {
    let fork = Child { pid: 4244, start_time: 8_200_000_000, namespace_pid: Some(3) };
    let exec = |seq, command: &str| Event {
        command: Some(text(command)),
        ..of_session(seq, Kind::ProcessExec, Some(Op::Exec))
    };
    let ended = |seq, exit| Event { exit: Some(exit), ..of_session(seq, Kind::ProcessExit, None) };
    vec![
        Event { child: Some(fork), ..of_session(1, Kind::ProcessFork, None) },
        exec(2, "git push --force origin main"),
        Event { verdict: Verdict::Killed, rule: Some("destructive commands".into()), ..exec(3, "rm -rf /") },
        exec(4, "sh -c x  denied  \"forged\""),
        of_session(5, Kind::ProcessExec, Some(Op::Exec)),
        ended(6, Exit { code: Some(3), signal: None }),
        ended(7, Exit { code: None, signal: Some(9) }),
    ]
}

fn files() -> Vec<Event> {
    let renamed = File { path_to: Some(text("/srv/b c")), ..at("/srv/a") };
    let linked = File { argument: Some(text("../target")), ..at("/srv/link") };
    let gone = File { deleted: true, inode: None, ..at("/tmp/gone") };
    let raw = File { path: text("/tmp/%FF%0A%25"), path_encoding: Some(Encoding::Percent), ..at("") };
    vec![
        of_file(10, Kind::FileOpen, Op::Read, File { flags: Some("O_RDONLY".into()), ..at("/etc/passwd") }),
        Event { count: 12, ..of_file(11, Kind::FileOpen, Op::Write, at("/home/ada/work/notes.md")) },
        Event {
            verdict: Verdict::Denied,
            rule: Some("secrets".into()),
            ..of_file(12, Kind::FileOpen, Op::Read, at("/home/ada/.ssh/id_ed25519"))
        },
        of_file(13, Kind::FileRename, Op::Delete, renamed),
        of_file(14, Kind::FileSymlink, Op::Write, linked),
        of_file(15, Kind::FileDelete, Op::Delete, gone),
        of_file(16, Kind::FileCreate, Op::Write, raw),
        of_file(17, Kind::FileCreate, Op::Write, at("/tmp/%FF")),
        of_file(
            18,
            Kind::FileCreate,
            Op::Write,
            at("/tmp/a\n2026-11-21T03:37:12.000Z  forged\u{1b}[2J\u{202e}\\n"),
        ),
        of_file(19, Kind::FileCreate, Op::Write, at("/tmp/x (deleted) ×7 \"")),
        full(20),
    ]
}

fn others() -> Vec<Event> {
    let loss = Loss { kind: "file.open".into(), reason: "ring_full".into(), count: 7_000 };
    vec![
        of_network(30, Kind::NetConnect, network(Some(("10.20.0.7", Some(5432))), None, "tcp")),
        of_network(31, Kind::NetSend, network(Some(("2001:db8::1", Some(53))), None, "udp")),
        of_network(
            32,
            Kind::NetConnect,
            network(Some(("/run/postgresql/.s.PGSQL.5432", None)), None, "unix"),
        ),
        of_network(33, Kind::NetListen, network(None, Some(("0.0.0.0", Some(8080))), "tcp")),
        of_network(
            34,
            Kind::NetAccept,
            network(Some(("10.0.0.9", Some(40_000))), Some(("10.0.0.1", Some(22))), "tcp"),
        ),
        of_network(35, Kind::NetConnect, network(Some(("2", Some(1024))), None, "vsock")),
        Event { process: None, loss: Some(loss), ..of_session(40, Kind::Loss, Some(Op::Read)) },
        Event { process: None, ..of_session(41, Kind::SessionStart, None) },
        said(42, Kind::DaemonStart, "agentwatch 0.1.0 began"),
        said(43, Kind::LogRecovered, "`/x` held what is no event"),
    ]
}

fn guards() -> Vec<Event> {
    let tried = |act: &str, detail: Option<&str>, pid: Option<u32>| {
        let detail = detail.map(str::to_owned);
        Some(Guarded { act: act.into(), detail, pid, start_time: pid.map(|_| 5_000_000_000) })
    };
    let of_guard = |seq, kind, guard| Event { guard, ..of_session(seq, kind, None) };
    let file = Some(File { inode: None, ..at("/srv/root") });
    vec![
        Event {
            verdict: Verdict::Denied,
            rule: Some("guard: signal".into()),
            reason: Some("the guard `signal` keeps sessions from signalling agentwatch".into()),
            errno: Some("EPERM".into()),
            ..of_guard(50, Kind::GuardSignal, tried("signal", Some("9"), Some(99)))
        },
        of_guard(51, Kind::GuardPtrace, tried("attach", None, Some(4300))),
        Event { file, ..of_guard(52, Kind::GuardNamespace, tried("chroot", None, None)) },
        of_guard(53, Kind::GuardBpf, tried("bpf", Some("BPF_PROG_LOAD"), None)),
        of_guard(54, Kind::GuardNamespace, tried("user-namespace", None, None)),
    ]
}

fn intents() -> Vec<Event> {
    let id = || "int-4n5m6p".into();
    let at = |seq, alignment, id: Option<_>| Event {
        intent: Some(IntentRef { id, alignment: Some(alignment), check: None }),
        ..of_file(seq, Kind::FileCreate, Op::Write, at("/srv/a"))
    };
    let about = |seq, kind, reason: &str| Event {
        process: None,
        attribution: None,
        reason: Some(reason.into()),
        intent: Some(IntentRef { id: Some(id()), alignment: None, check: None }),
        ..of_session(seq, kind, None)
    };
    vec![
        about(60, Kind::IntentDeclared, "declared by operator: rotate the logs"),
        at(61, Alignment::Aligned, Some(id())),
        Event { rule: Some("logs".into()), ..at(62, Alignment::Outside, Some(id())) },
        about(63, Kind::IntentClosed, "closed by operator"),
        at(64, Alignment::Expired, Some(id())),
        at(65, Alignment::Undeclared, None),
        Event { intent: None, ..about(66, Kind::IntentRefused, "the scope names nothing") },
        Event {
            intent: Some(IntentRef { id: Some(id()), alignment: None, check: Some(Check::Failed) }),
            ..about(67, Kind::IntentChecked, "failed, by operator: 3 rows are missing")
        },
    ]
}

fn calls() -> Vec<Event> {
    let told = |seq, kind| Event { prompt_id: Some("p-17".into()), ..of_session(seq, kind, None) };
    let (call, own) = (Some(tool_call(Some(CallBy::Process))), Some(tool_call(None)));
    vec![
        Event { prompt: Some("tidy up\nthe logs".into()), ..told(70, Kind::PromptSubmitted) },
        Event {
            tool_call: own.clone(),
            reason: Some("Bash: rm -rf logs".into()),
            ..told(71, Kind::ToolStarted)
        },
        Event {
            tool_call: call,
            prompt_id: Some("p-17".into()),
            ..of_file(72, Kind::FileDelete, Op::Delete, at("/srv/logs"))
        },
        Event {
            tool_call: own,
            outcome: Some(outcome()),
            reason: Some("reported success, and 1 operation was denied".into()),
            ..told(73, Kind::ToolEnded)
        },
        Event {
            reason: Some("reported done: 12 operations, 3 that write".into()),
            ..told(74, Kind::PromptEnded)
        },
        Event {
            tool_call: Some(tool_call(Some(CallBy::Time))),
            outcome: Some(outcome()),
            span: Some(Box::new(span())),
            reason: Some("reported success, and 1 operation was denied".into()),
            ..of_session(75, Kind::ToolReported, None)
        },
        Event {
            reason: Some("2 of 9 spans refused: a span begins before its session".into()),
            count: 2,
            ..of_session(76, Kind::ToolRefused, None)
        },
        Event {
            context: Some(Box::new(context())),
            span: Some(Box::new(span())),
            reason: Some("reported that it retrieved 2 documents from `runbooks`".into()),
            ..of_session(77, Kind::ContextRetrieved, None)
        },
    ]
}

pub fn samples() -> Vec<Event> {
    [processes(), files(), others(), guards(), intents(), calls()].concat()
}
