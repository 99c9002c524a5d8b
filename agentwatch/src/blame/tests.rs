use serde_json::{Value, json};

use super::*;
use crate::event::Kind;
use crate::log::{Limits, Log};

/// A log of these events, each with what they have in common.
fn log(events: &[(&str, &str, Value)]) -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(state.path(), Limits::default()).unwrap();
    for (kind, session, rest) in events {
        let mut event = json!({
            "time": "2026-11-21T03:37:12.000000001Z", "seq": 0, "host": "h", "boot_id": "b", "kind": kind,
            "agent": "coding", "owner": "dev@example.com", "session": session, "verdict": "allowed",
        });
        event.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        log.append(&mut serde_json::from_value(event).unwrap());
    }
    log.flush().unwrap();
    state
}

fn process(pid: u32, words: &[&str]) -> Value {
    json!({"pid": pid, "start_time": u64::from(pid) * 10, "executable.path": "/usr/bin/x", "command_args": words})
}

fn file(op: Option<&str>, path: &str, to: Option<&str>, inode: u64) -> Value {
    let mut file = json!({"path": path, "device": "8:1", "inode": inode});
    if let Some(to) = to {
        file["path_to"] = json!(to);
    }
    let mut rest = json!({"file": file, "process": process(20, &["sh"])});
    if let Some(op) = op {
        rest["op"] = json!(op);
    }
    rest
}

/// A file that was written under another name, looked at, changed by a second session, and run by cron.
fn left_behind() -> tempfile::TempDir {
    let mut first = file(Some("write"), "/srv/job.tmp", None, 12);
    first["tool_call"] = json!({"id": "toolu_1", "name": "Bash", "by": "process"});
    first["prompt_id"] = json!("p-1");
    first["policy"] = json!({"version": 3, "hash": "0a"});
    let cause = json!({"path": "/srv/job.sh", "by": "exec", "session": "coding-a", "agent": "coding", "seq": 1,
                       "time": "2026-11-21T03:37:12.000000001Z"});
    log(&[
        ("file.open", "coding-a", first),
        ("file.open", "coding-a", file(Some("write"), "/srv/job.sh2", None, 14)),
        ("file.rename", "coding-a", file(None, "/srv/job.tmp", Some("/srv/job.sh"), 12)),
        ("file.open", "coding-b", file(Some("read"), "/srv/job.sh", None, 12)),
        (
            "session.start",
            "coding-c",
            json!({"cause": cause, "process": process(30, &["job.sh"]), "reason": "why"}),
        ),
        (
            "process.fork",
            "coding-c",
            json!({"process": process(30, &["job.sh"]), "child": {"pid": 31, "start_time": 310}}),
        ),
        ("process.exec", "coding-c", json!({"op": "exec", "process": process(31, &["curl", "x"])})),
        (
            "net.connect",
            "coding-c",
            json!({"op": "connect", "process": process(31, &["curl", "x"]),
            "network": {"transport": "tcp", "type": "ipv4", "peer.address": "10.0.0.5", "peer.port": 5432}}),
        ),
        (
            "net.listen",
            "coding-a",
            json!({"op": "listen", "process": process(20, &["sh"]),
            "network": {"transport": "unix", "type": "unix", "local.address": "/run/x.sock"}}),
        ),
    ])
}

#[test]
fn a_file_is_blamed_on_its_last_writer_under_whatever_name() {
    let state = left_behind();
    let blame = of_file(state.path(), b"/srv/job.sh", Some(12), &[], 10).unwrap();
    let writer = blame.writer.clone().unwrap();
    assert_eq!((&*writer.session, writer.seq, writer.prompt_id.as_deref()), ("coding-a", 1, Some("p-1")));
    assert_eq!(writer.tool_call.unwrap().id.as_ref(), "toolu_1");
    assert_eq!(writer.policy.unwrap().version, 3);
    assert!(!blame.replaced);
    let acts: Vec<u64> = blame.acts.iter().map(|event| event.seq).collect();
    assert_eq!(acts, [3, 1], "the rename, and the write before it; neither who read it nor another file");
    assert_eq!(blame.caused.iter().map(|event| &*event.session).collect::<Vec<_>>(), ["coding-c"]);
    assert_eq!((blame.looked_through.events, blame.looked_through.missing), (9, 0));
    assert!(of_file(state.path(), b"/srv/job.sh", Some(99), &[], 10).unwrap().replaced);
    let few = of_file(state.path(), b"/srv/job.sh", Some(12), &[], 1).unwrap();
    assert_eq!((few.acts.len(), few.more_acts), (1, 1));
    assert!(of_file(state.path(), b"/srv/job", None, &[], 10).unwrap().is_empty(), "no part of a name");
}

#[test]
fn what_is_kept_tells_of_what_the_log_has_no_more() {
    let state = log(&[("daemon.start", "", json!({}))]);
    let kept = json!({
        "device": 1, "inode": 12, "generation": 5, "path": "/srv/job.sh", "number": 7, "boot_id": "a",
        "session": "coding-old", "agent": "coding", "prompt_id": "p-0", "time": "2026-01-01T00:00:00Z", "seq": 400,
    });
    let kept: Vec<crate::written::Write> = vec![serde_json::from_value(kept).unwrap()];
    let blame = of_file(state.path(), b"/srv/job.sh", Some(12), &kept, 10).unwrap();
    assert_eq!(&*blame.writer.unwrap().session, "coding-old");
    let other = of_file(state.path(), b"/srv/job.sh", Some(13), &kept, 10).unwrap();
    assert!(other.is_empty(), "another file has that name by now");
}

#[test]
fn a_process_is_blamed_on_its_session_and_its_cause() {
    let state = left_behind();
    let (found, _) = of_process(state.path(), 31).unwrap();
    let found = found.unwrap();
    assert_eq!((&*found.last.session, found.start_time), ("coding-c", 310));
    assert_eq!(found.processes.iter().map(|step| step.pid).collect::<Vec<_>>(), [30, 31]);
    let start = found.session_start.unwrap();
    assert_eq!(&*start.cause.unwrap().session, "coding-a");
    let (nobody, looked) = of_process(state.path(), 3).unwrap();
    assert!(nobody.is_none(), "no part of a number");
    assert!(
        looked.sentence().starts_with("looked through 9 events of the log, from 2026-11-21"),
        "{}",
        looked.sentence()
    );
}

#[test]
fn an_address_is_blamed_on_who_used_it() {
    let state = left_behind();
    let kinds = |address: &str| {
        let found = of_socket(state.path(), &Address::parse(address).unwrap(), 10).unwrap();
        found.acts.iter().map(|event| event.kind).collect::<Vec<_>>()
    };
    for address in ["10.0.0.5", "10.0.0.5:5432", ":5432", "[::ffff:10.0.0.5]:5432"] {
        assert_eq!(kinds(address), [Kind::NetConnect], "{address}");
    }
    assert_eq!(kinds("/run/x.sock"), [Kind::NetListen]);
    for address in ["10.0.0.5:543", "10.0.0.50", "@x", "/run/x"] {
        assert_eq!(kinds(address), [], "{address}");
    }
    for bad in ["", "example.com", "10.0.0.5:x", "10.0.0.5:99999", "x:5432"] {
        assert!(Address::parse(bad).unwrap_err().contains("no address"), "{bad}");
    }
}
