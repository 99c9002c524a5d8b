//! What a policy would have decided about events as they are stored.

use serde_json::{Value, json};

use super::*;
use crate::event::{Event, Op, Verdict};

const POLICY: &str = r#"version: 1
agents:
  e: {owner: o, mode: enforce, default: {listen: deny}}
  r: {owner: o, mode: recommend}
  o: {owner: o}
rules:
  - {name: reads, deny: {read: [/srv/r]}}
  - {name: writes, deny: {write: [/srv/w]}}
  - {name: deletes, deny: {delete: [/srv/d]}}
  - {name: programs, deny: {exec: [/srv/x]}}
  - {name: commands, kill: {run: ["rm -rf /*", "* tail"]}}
  - {name: peers, deny: {connect: ["10.0.0.0/8:22", /run/s.sock, "unix:@a", "udp:*:53"]}}
"#;

/// An event as it is stored, of the agent `e`, with these fields.
fn event(kind: &str, op: &str, more: &Value) -> Event {
    let mut whole = json!({
        "time": "2026-11-21T03:37:12.001456789Z", "seq": 1, "host": "h", "boot_id": "b", "kind": kind,
        "agent": "e", "session": "e-1", "verdict": "allowed", "op": op,
        "process": {"pid": 1, "start_time": 1, "ppid": 1, "executable.path": "/usr/bin/sh",
            "command_args": ["sh"], "uid": 0},
    });
    let fields = more.as_object().unwrap().clone();
    whole.as_object_mut().unwrap().extend(fields);
    serde_json::from_value(whole).unwrap()
}

fn file(kind: &str, file: Value) -> Event {
    event(kind, "write", &json!({ "file": file }))
}

fn policy() -> Policy {
    read(POLICY).unwrap().0
}

/// Operation, verdict and rule.
fn decided(event: &Event) -> Option<(Op, Verdict, Option<String>)> {
    let now = policy().decide_past(&event.agent, &operations_of(event), NOW)?;
    Some((now.operation.op, now.verdict, now.rule))
}

fn by(op: Op, verdict: Verdict, rule: &str) -> Option<(Op, Verdict, Option<String>)> {
    Some((op, verdict, Some(rule.to_owned())))
}

#[test]
fn an_open_is_all_that_its_flags_ask_for() {
    let open = |path: &str, flags: &str| decided(&file("file.open", json!({"path": path, "flags": flags})));
    assert_eq!(open("/srv/r/f", "O_RDONLY|O_CLOEXEC"), by(Op::Read, Verdict::Denied, "reads"));
    assert_eq!(open("/srv/r/f", "O_RDWR"), by(Op::Read, Verdict::Denied, "reads"));
    assert_eq!(open("/srv/r/f", "O_WRONLY").unwrap().1, Verdict::Allowed);
    assert_eq!(open("/srv/w", "O_WRONLY"), by(Op::Write, Verdict::Denied, "writes"));
    assert_eq!(open("/srv/w", "O_RDWR"), by(Op::Write, Verdict::Denied, "writes"));
    assert_eq!(open("/srv/w", "O_RDONLY").unwrap().1, Verdict::Allowed);
    assert_eq!(open("/srv/d", "O_WRONLY|O_TRUNC"), by(Op::Delete, Verdict::Denied, "deletes"));
    assert_eq!(open("/srv/d", "O_WRONLY").unwrap().1, Verdict::Allowed);
}

#[test]
fn names_that_come_and_go_are_judged_at_both_ends() {
    let rename = |from: &str, to: &str, flags: Value| {
        decided(&file("file.rename", json!({"path": from, "path_to": to, "flags": flags}))).unwrap()
    };
    assert_eq!(rename("/srv/d/f", "/tmp/f", Value::Null).2.as_deref(), Some("deletes"));
    assert_eq!(rename("/tmp/f", "/srv/w/f", Value::Null).2.as_deref(), Some("writes"));
    assert_eq!(rename("/tmp/f", "/srv/d/f", Value::Null).2.as_deref(), Some("deletes"));
    assert_eq!(rename("/tmp/f", "/srv/d/f", json!("RENAME_NOREPLACE")).1, Verdict::Allowed);
    assert_eq!(rename("/srv/w/f", "/tmp/f", json!("RENAME_EXCHANGE")).2.as_deref(), Some("writes"));
    assert_eq!(rename("/srv/w/f", "/tmp/f", Value::Null).1, Verdict::Allowed);
    let link = |from: &str, to: &str| {
        decided(&file("file.link", json!({"path": from, "path_to": to}))).unwrap().2.unwrap_or_default()
    };
    assert_eq!(link("/srv/r/f", "/tmp/f"), "reads", "another name for what may not be read");
    assert_eq!(link("/srv/x", "/tmp/f"), "programs");
    assert_eq!(link("/tmp/f", "/srv/w/f"), "writes");
    assert_eq!(link("/tmp/f", "/tmp/g"), "");
    for kind in ["file.create", "file.mkdir", "file.symlink", "file.mode", "file.owner", "file.truncate"] {
        assert_eq!(
            decided(&file(kind, json!({"path": "/srv/w/f"}))).unwrap().2.as_deref(),
            Some("writes"),
            "{kind}"
        );
    }
    for kind in ["file.delete", "file.rmdir", "file.truncate"] {
        let found = decided(&file(kind, json!({"path": "/srv/d/f"})));
        assert_eq!(found.unwrap().2.as_deref(), Some("deletes"), "{kind}");
    }
    for kind in ["mount", "process.exit", "session.start"] {
        assert_eq!(decided(&file(kind, json!({"path": "/srv/w/f"}))), None, "{kind}: nobody judges it");
    }
}

#[test]
fn an_exec_is_its_program_and_its_command_line() {
    let exec = |path: &str, args: Value, more: Value| {
        let mut process = json!({"pid": 1, "start_time": 1, "ppid": 1, "executable.path": path,
            "command_args": args, "uid": 0});
        process.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        decided(&event("process.exec", "exec", &json!({"process": process, "command": "x"}))).unwrap()
    };
    assert_eq!(exec("/srv/x/f", json!(["f"]), json!({})), by(Op::Exec, Verdict::Denied, "programs").unwrap());
    let rm = exec("/usr/bin/rm", json!(["other", "-rf", "/srv"]), json!({}));
    assert_eq!(rm, by(Op::Run, Verdict::Killed, "commands").unwrap(), "by the program's own name");
    assert_eq!(exec("/usr/bin/ls", json!(["ls"]), json!({})).1, Verdict::Allowed);
    let cut = json!({"command_args_truncated": true});
    let short = exec("/usr/bin/ls", json!(["ls", "a"]), cut.clone());
    assert_eq!(short, by(Op::Run, Verdict::Denied, "undecided").unwrap());
    let long = exec("/usr/bin/ls", json!(["ls", "a".repeat(1_100)]), cut);
    assert_eq!(long.1, Verdict::Allowed, "the kernel looks at no more");
    let refused = json!({"file": {"path": "/srv/x"}, "verdict": "denied"});
    assert_eq!(decided(&event("process.exec", "exec", &refused)), by(Op::Exec, Verdict::Denied, "programs"));
    let refused = json!({"file": {"path": "/usr/bin/rm"}, "command": "rm -rf /srv", "verdict": "denied"});
    assert_eq!(decided(&event("process.exec", "run", &refused)), by(Op::Run, Verdict::Killed, "commands"));
}

#[test]
fn addresses_are_judged_where_they_are_known() {
    let network = |kind: &str, network: Value| {
        decided(&event(kind, "connect", &json!({ "network": network }))).map(|found| (found.1, found.2))
    };
    let peer = |transport: &str, address: &str, port: u32| {
        let fields = json!({"transport": transport, "type": "x", "peer.address": address, "peer.port": port});
        network("net.connect", fields).unwrap().1.unwrap_or_default()
    };
    assert_eq!(peer("tcp", "10.1.2.3", 22), "peers");
    assert_eq!(peer("tcp", "10.1.2.3", 23), "");
    assert_eq!(peer("udp", "2001:db8::1", 53), "peers");
    assert_eq!(peer("tcp", "2001:db8::1", 53), "");
    assert_eq!(peer("unix", "/run/s.sock", 0), "peers");
    assert_eq!(peer("unix", "@a", 0), "peers");
    assert_eq!(peer("unix", "@b", 0), "");
    assert_eq!(peer("tcp", "nonsense", 22), "undecided");
    let local = |kind, port: u32| {
        let local =
            json!({"transport": "tcp", "type": "ipv4", "local.address": "0.0.0.0", "local.port": port});
        network(kind, local)
    };
    assert_eq!(local("net.listen", 80), Some((Verdict::Denied, Some("default".to_owned()))));
    assert_eq!(local("net.bind", 0), None, "the kernel chooses the port");
    assert_eq!(network("net.accept", json!({"transport": "tcp", "type": "ipv4"})), None);
}

#[test]
fn what_was_not_recorded_whole_is_refused_where_rules_are_enforced() {
    let cut = |agent: &str, kind: &str| {
        let mut event = file(kind, json!({"path": "/f", "path_truncated": true}));
        event.agent = agent.into();
        decided(&event).unwrap()
    };
    assert_eq!(cut("e", "file.create"), by(Op::Write, Verdict::Denied, "undecided").unwrap());
    assert_eq!(cut("r", "file.create"), by(Op::Write, Verdict::WouldDeny, "undecided").unwrap());
    assert_eq!(cut("o", "file.create").1, Verdict::Allowed);
    assert_eq!(cut("nobody", "file.create").1, Verdict::Allowed);
    let encoded = file("file.create", json!({"path": "/srv/w/%FF", "path_encoding": "percent"}));
    assert_eq!(decided(&encoded), by(Op::Write, Verdict::Denied, "writes"));
    let elsewhere = file("file.create", json!({"path": "/f", "root": "dev:8:1"}));
    assert_eq!(decided(&elsewhere).unwrap().2.as_deref(), Some("undecided"));
    let inside = file("file.create", json!({"path": "/var/lib/c/srv/w", "container_path": "/srv/w"}));
    assert_eq!(decided(&inside).unwrap().2.as_deref(), Some("writes"), "rules see what the process sees");
}

#[test]
fn the_past_is_summed_up_by_what_changes() {
    let policy = policy();
    let mut replay = Replay::new(&policy);
    let open = |agent: &str, verdict: &str, count: u64| {
        let mut event = file("file.open", json!({"path": "/srv/r/\u{1b}", "flags": "O_RDONLY"}));
        (event.agent, event.count) = (agent.into(), count);
        event.verdict = Verdict::from_name(verdict).unwrap();
        event
    };
    for event in [
        open("e", "allowed", 3),
        open("e", "allowed", 4),
        open("e", "denied", 2),
        open("r", "logged", 5),
        open("r", "denied", 6),
        open("o", "would-deny", 1),
        open("o", "allowed", 9),
        event("process.exit", "exec", &json!({})),
    ] {
        replay.take(&event);
    }
    replay.missing(11);
    replay.unreadable();
    let (summary, differences) = replay.end();
    let wanted = Summary {
        operations: 30,
        newly_denied: 7,
        newly_would_deny: 5,
        newly_allowed: 7,
        unchanged: 11,
        lost: 11,
        unreadable: 1,
        ..Summary::default()
    };
    assert_eq!(summary, wanted);
    let rows: Vec<_> =
        differences.iter().map(|one| (one.agent.as_str(), one.then, one.now, one.count)).collect();
    use Verdict::{Allowed, Denied, Logged, WouldDeny};
    let wanted = [
        ("e", Allowed, Denied, 7),
        ("r", Denied, WouldDeny, 6),
        ("r", Logged, WouldDeny, 5),
        ("o", WouldDeny, Allowed, 1),
    ];
    assert_eq!(rows, wanted);
    assert!(differences.iter().all(|one| one.target == "/srv/r/\\x1b" && one.op == Op::Read));
}

#[test]
fn rules_of_a_window_count_when_it_happened() {
    let text = "version: 1\nagents: {e: {owner: o, mode: enforce}}\n\
                windows: {w: {from: 2026-11-21T03:00:00Z, to: 2026-11-21T04:00:00Z}}\n\
                rules: [{name: n, during: w, deny: {read: [/srv]}}]\n";
    let policy = read(text).unwrap().0;
    let mut replay = Replay::new(&policy);
    let mut inside = file("file.open", json!({"path": "/srv/f", "flags": "O_RDONLY"}));
    replay.take(&inside);
    inside.time = "2026-11-21T04:00:00.000000000Z".into();
    replay.take(&inside);
    let (summary, differences) = replay.end();
    assert_eq!((summary.newly_denied, summary.unchanged, differences.len()), (1, 1, 1));
}
