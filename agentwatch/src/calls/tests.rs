use serde_json::json;

use super::*;
use crate::{
    control::tool::{Reported, ToolCall},
    event::{File, ObservedText, Op, Process, Verdict},
    log::testing,
};

const SESSION: u64 = 7;
const HARNESS: ProcessId = ProcessId { pid: 10, start_time: 1 };

fn begin(id: &str, name: &str, input: serde_json::Value) -> Begin {
    let tool = ToolCall { id: id.into(), name: name.into(), input, ..ToolCall::default() };
    Begin { tool, prompt_id: Some("p-1".into()), subagent: None }
}

fn shell(id: &str, command: &str) -> Begin {
    begin(id, "Bash", json!({"command": command}))
}

fn end(id: &str) -> End {
    End { id: id.into(), reported: Some(Reported::Success), ..End::default() }
}

/// An operation of a process on a file.
fn act(pid: u32, path: &str, op: Op, verdict: Verdict) -> Event {
    Event {
        op: Some(op),
        verdict,
        process: Some(Process { pid, start_time: 1, ..Process::default() }),
        file: Some(File { path: ObservedText(path.into()), ..File::default() }),
        ..testing::event(0, "coding-1")
    }
}

fn call_of(calls: &Calls, own: Option<&CallRef>, mut event: Event, at_ns: u64) -> Option<ToolCallRef> {
    calls.describe(SESSION, own, &mut event, at_ns);
    event.tool_call
}

#[test]
fn calls_at_once_are_told_apart_by_what_they_were_told() {
    let mut calls = Calls::default();
    calls.begin(SESSION, HARNESS, &shell("one", "make test"), 10);
    calls.begin(SESSION, HARNESS, &shell("two", "make 'test' install"), 10);
    let mut claim = |command: &str, at_ns: u64| {
        calls.claim(SESSION, Some(HARNESS), command, at_ns).map(|call| (call.id.to_string(), call.by))
    };
    assert_eq!(claim("bash -c make test", 9), None, "no call was on its way");
    assert_eq!(claim("bash -c snapshot", 11), None, "it may be of either");
    let (one, two) = (("one".to_owned(), CallBy::Process), ("two".to_owned(), CallBy::Process));
    assert_eq!(claim(r#"bash -c "make test install""#, 11), Some(two));
    assert_eq!(claim("bash -c make test", 11), Some(one));
    assert_eq!(claim("bash -c make test", 11), None, "each has one first process");
}

#[test]
fn what_nobody_ended_is_over_with_its_prompt() {
    let mut calls = Calls::default();
    calls.begin(SESSION, HARNESS, &shell("told", "make"), 10);
    calls.begin(SESSION, HARNESS, &shell("untold", "false"), 10);
    calls.end(SESSION, &end("told"), 11).unwrap();
    let later = Begin { prompt_id: Some("p-2".into()), ..shell("later", "make") };
    calls.begin(SESSION, HARNESS, &later, 12);
    let mut over = |prompt: Option<&str>| {
        let over = calls.end_untold(SESSION, prompt, 13);
        over.iter().map(|one| one.whose.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(over(Some("p-0")), Vec::<String>::new());
    assert_eq!(over(Some("p-1")), ["untold"]);
    assert_eq!(over(None), ["later"], "of the latest prompt where none is named");
    assert_eq!(over(None), Vec::<String>::new());
    assert_eq!(calls.end_untold(SESSION + 1, None, 13), []);
}

#[test]
fn an_id_that_is_cut_is_found_again() {
    let (mut calls, id) = (Calls::default(), "x".repeat(NAME_BYTES + 1));
    calls.begin(SESSION, HARNESS, &shell(&id, "make"), 10);
    calls.begin(SESSION, HARNESS, &shell(&id, "make test"), 11);
    assert_eq!(calls.by_session.get(&SESSION).map(|of| of.calls.len()), Some(1));
    let ended = calls.end(SESSION, &end(&id), 12).unwrap();
    assert_eq!(ended.whose.id.len(), NAME_BYTES);
    assert_eq!(calls.end(SESSION, &end(&id), 13), None);
}

#[test]
fn a_tool_that_is_told_to_run_a_hook_is_no_hook() {
    let mut calls = Calls::default();
    let command = "sh -c 'echo {} | agentwatch hook claude-code'";
    calls.begin(SESSION, HARNESS, &shell("one", "make"), 10);
    assert_eq!(calls.claim(SESSION, Some(HARNESS), command, 11), None);
    calls.begin(SESSION, HARNESS, &shell("two", "echo {} | agentwatch hook claude-code"), 12);
    let found = calls.claim(SESSION, Some(HARNESS), command, 13).unwrap();
    assert_eq!((&*found.id, found.by), ("two", CallBy::Process));
}

#[test]
fn what_is_started_during_one_call_alone_is_of_it() {
    let mut calls = Calls::default();
    calls.begin(SESSION, HARNESS, &begin("one", "Grep", json!({"pattern": "x"})), 10);
    let found = calls.claim(SESSION, Some(HARNESS), "rg x", 11).unwrap();
    assert_eq!((&*found.id, found.by), ("one", CallBy::Only));
    let other = ProcessId { pid: 11, start_time: 1 };
    assert_eq!(calls.claim(SESSION, Some(other), "rg x", 11), None, "not of this harness");
    assert_eq!(calls.claim(SESSION, Some(HARNESS), "sh -c agentwatch hook claude-code", 11), None);
    calls.end(SESSION, &end("one"), 20);
    assert_eq!(calls.claim(SESSION, Some(HARNESS), "rg x", 21), None);
}

#[test]
fn what_the_harness_does_itself_is_known_by_the_file() {
    let mut calls = Calls::default();
    calls.begin(SESSION, HARNESS, &begin("one", "Write", json!({"file_path": "/srv/a"})), 10);
    let at = |pid, path: &str, at_ns| {
        call_of(&calls, None, act(pid, path, Op::Write, Verdict::Allowed), at_ns).map(|call| call.by.unwrap())
    };
    assert_eq!(at(10, "/srv/a", 11), Some(CallBy::Target));
    assert_eq!(at(10, "/srv/a.tmp", 11), Some(CallBy::Target));
    assert_eq!(at(10, "/srv/b", 11), None);
    assert_eq!(at(11, "/srv/a", 11), None, "another process");
    assert_eq!(at(10, "/srv/a", 9), None, "before it");
}

#[test]
fn a_command_names_what_it_starts() {
    let mut calls = Calls::default();
    let own = calls.begin(SESSION, HARNESS, &shell("one", "cd /w && python3 ./deploy.sh | xargs rm"), 10);
    let args = |args: &[&str]| args.iter().map(|arg| ObservedText((*arg).into())).collect::<Vec<_>>();
    for (program, given, named) in [
        ("/usr/bin/rm", &["rm", "-rf"][..], true),
        ("/usr/bin/python3.13", &["python3", "x"], true),
        ("/usr/bin/bash", &["/bin/bash", "/w/deploy.sh"], true),
        ("/usr/bin/curl", &["curl", "rm.example.com"], false),
        ("/usr/bin/dd", &["dd", "of=/dev/sda"], false),
    ] {
        assert_eq!(calls.names(SESSION, &own, program, &args(given)), named, "{program}");
    }
    assert!(!calls.names(SESSION + 1, &own, "/usr/bin/rm", &[]));
    let align = |op, named| {
        let mut event = act(12, "/usr/bin/rm", op, Verdict::Allowed);
        calls.describe(SESSION, Some(&own), &mut event, 11);
        calls.align(SESSION, &event, named).and_then(|intent| intent.alignment)
    };
    assert_eq!(align(Op::Exec, true), Some(Alignment::Aligned));
    assert_eq!(align(Op::Exec, false), Some(Alignment::Outside));
    assert_eq!(align(Op::Write, false), None, "a command does not say what it writes");
}

#[test]
fn what_came_of_a_call_is_counted_until_its_end() {
    let mut calls = Calls::default();
    let own = calls.begin(SESSION, HARNESS, &shell("one", "rm -rf /srv"), 10);
    let mut count = |op, verdict| {
        let mut event = act(12, "/srv/a", op, verdict);
        calls.describe(SESSION, Some(&own), &mut event, 11);
        calls.count(SESSION, &event, 11);
        calls.count_more(SESSION, &event, 2, 11);
    };
    count(Op::Read, Verdict::Allowed);
    count(Op::Delete, Verdict::Denied);
    count(Op::Write, Verdict::Logged);
    let ended = calls.end(SESSION, &end("one"), 20).unwrap();
    let Tally { operations, writes, denied, refused } = ended.seen;
    assert_eq!((operations, writes, denied), (9, 3, 3));
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].what, "delete /srv/a");
    assert_eq!(calls.end(SESSION, &end("one"), 21), None, "it was over");
    assert_eq!(calls.end(SESSION, &end("none"), 21), None);
    let (prompt, seen) = calls.done(SESSION);
    assert_eq!((prompt.as_deref(), seen.operations), (Some("p-1"), 9));
    calls.prompt(SESSION, Some("p-2"));
    assert_eq!(calls.done(SESSION).1, Tally::default());
}

#[test]
fn sub_agents_keep_the_call_that_started_them() {
    let mut calls = Calls::default();
    let of = |id: &str, agent: &str| Begin { subagent: Some(agent.into()), ..shell(id, "ls") };
    let parent = |call: Arc<CallRef>| call.parent.as_deref().map(str::to_owned);
    calls.begin(SESSION, HARNESS, &begin("first", "Agent", json!({})), 10);
    let found = calls.begin(SESSION, HARNESS, &of("in-first", "a"), 11);
    assert_eq!(parent(found).as_deref(), Some("first"), "the only one that it can be");
    calls.begin(SESSION, HARNESS, &begin("second", "Agent", json!({})), 12);
    calls.begin(SESSION, HARNESS, &begin("third", "Agent", json!({})), 12);
    assert_eq!(parent(calls.begin(SESSION, HARNESS, &of("x", "c"), 13)), None, "two could be it");
    calls.end(SESSION, &End { subagent: Some("c".into()), ..end("third") }, 14);
    assert_eq!(parent(calls.begin(SESSION, HARNESS, &of("y", "c"), 15)).as_deref(), Some("third"));
    assert_eq!(parent(calls.begin(SESSION, HARNESS, &of("z", "a"), 15)).as_deref(), Some("first"));
}

#[test]
fn what_is_kept_is_bounded() {
    let mut calls = Calls::default();
    for number in 0..KEPT_MAX + 10 {
        calls.begin(SESSION, HARNESS, &shell(&number.to_string(), "ls"), 10);
        calls.end(SESSION, &End { subagent: Some(number.to_string()), ..end(&number.to_string()) }, 11);
    }
    let of = &calls.by_session[&SESSION];
    assert_eq!((of.calls.len(), of.subagents.len()), (KEPT_MAX, SUBAGENTS_MAX));
    let long = calls.begin(SESSION, HARNESS, &shell(&"é".repeat(1_000), "ls"), 12);
    assert_eq!(long.id.len(), NAME_BYTES);
    calls.over(SESSION, 13);
    assert_eq!(calls.end(SESSION, &end(&long.id), 14), None);
    calls.forget(SESSION);
    assert!(calls.by_session.is_empty());
}

#[test]
fn what_is_on_its_way_outlives_a_restart() {
    let mut before = Calls::default();
    before.begin(SESSION, HARNESS, &shell("over", "true"), 9);
    before.end(SESSION, &end("over"), 9);
    before.begin(SESSION, HARNESS, &shell("behind", "server &"), 10);
    before.begin(SESSION, HARNESS, &shell("one", "make test"), 10);
    let behind = before.claim(SESSION, Some(HARNESS), "bash -c 'server &'", 11).unwrap();
    before.end(SESSION, &end("behind"), 12);
    let mut written = act(20, "/w/a", Op::Write, Verdict::Allowed);
    let one = before.claim(SESSION, Some(HARNESS), "bash -c 'make test'", 12).unwrap();
    before.describe(SESSION, Some(&one), &mut written, 13);
    before.count(SESSION, &written, 13);
    let id = ProcessId { pid: 30, start_time: 5 };
    let server = KeptProcess { id, session: SESSION, call: (*behind).clone(), named: true };
    let text = serde_json::to_vec(&before.kept(vec![server.clone()])).unwrap();

    let mut after = Calls::default();
    assert_eq!(after.restore(serde_json::from_slice(&text).unwrap()), [server]);
    let ids: Vec<_> = after.by_session[&SESSION].calls.iter().map(|call| &*call.whose.id).collect();
    assert_eq!(ids, ["behind", "one"], "what is over and left nothing is not kept");
    assert_eq!(after.claim(SESSION, Some(HARNESS), "bash -c 'make test'", 14), None, "it was found before");
    let prompt = call_of(&after, Some(&behind), act(30, "/w/b", Op::Write, Verdict::Allowed), 15);
    assert_eq!(prompt.map(|call| call.id.to_string()), Some("behind".to_owned()));
    let ended = after.end(SESSION, &end("one"), 16).unwrap();
    assert_eq!((ended.seen.operations, ended.seen.writes), (1, 1));
    assert_eq!(ended.whose.prompt.as_deref(), Some("p-1"));
}
