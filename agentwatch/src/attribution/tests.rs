//! Attribution over records made by hand, with a host that knows nothing.

use crate::places::Mounts;
use agentwatch_common::{
    ABI,
    kind::{Attribution as By, RecordKind},
    maps::{LossKey, SessionEntry},
};

use super::*;
use crate::{
    agents::AgentTable,
    control::state::RecognisedBy,
    decode::decode,
    event::{Event, Exit, How, Kind, Op},
};

/// A host of which nothing can be learned.
#[derive(Debug)]
struct Blind;

impl HostFacts for Blind {
    fn process(&mut self, _pid: u32) -> Option<ProcessSeen> {
        None
    }
    fn session(&mut self, _number: u64) -> Option<SessionEntry> {
        None
    }
    fn cgroup_of(&mut self, _pid: u32) -> Option<Vec<u8>> {
        None
    }
    fn mounts(&mut self) -> Option<Mounts> {
        Some(Mounts::parse(b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"))
    }
}

/// Attribution with what it said.
struct Bench {
    state: Attribution,
    time: u64,
}

impl Bench {
    fn new() -> Self {
        let host = Host { name: "h".into(), boot_id: "b".into(), boot_unix_ns: 1_790_000_000_000_000_000 };
        let table = std::sync::Arc::new(AgentTable::new(Vec::new()).unwrap());
        Self { state: Attribution::new(host, table, Box::new(Blind)), time: 0 }
    }

    /// Applies one record of a process that began at `start`.
    fn apply(&mut self, kind: RecordKind, session: u64, (pid, start): (u32, u64), rest: &[u8]) -> Vec<Event> {
        self.time += 1;
        let mut bytes = Vec::new();
        bytes.extend((56 + rest.len() as u32).to_le_bytes());
        bytes.extend(kind.raw().to_le_bytes());
        bytes.extend(ABI.to_le_bytes());
        for word in [self.time, session, start] {
            bytes.extend(word.to_le_bytes());
        }
        for word in [pid, pid, 1, 1000] {
            bytes.extend(word.to_le_bytes());
        }
        // Not judged.
        bytes.extend([0; 8]);
        bytes.extend(rest);
        let mut out = Vec::new();
        self.state.apply(&decode(&bytes).unwrap(), &bytes, &mut out);
        out
    }

    fn exec(
        &mut self,
        session: u64,
        process: (u32, u64),
        begins: Option<u64>,
        program: &str,
        args: &[u8],
    ) -> Vec<Event> {
        let attribution = if begins.is_some() { By::MatchedExec.raw() } else { 0 };
        let rest = exec_rest(begins.unwrap_or(0), attribution, program, args, args.len() as u32, 0);
        self.apply(RecordKind::Exec, session, process, &rest)
    }

    fn fork(&mut self, session: u64, process: (u32, u64), (pid, start): (u32, u64)) -> Vec<Event> {
        let rest = [&start.to_le_bytes()[..], &pid.to_le_bytes(), &pid.to_le_bytes()].concat();
        self.apply(RecordKind::Fork, session, process, &rest)
    }

    fn exit(&mut self, session: u64, process: (u32, u64), code: u32) -> Vec<Event> {
        self.apply(RecordKind::Exit, session, process, &[code.to_le_bytes(), [0; 4]].concat())
    }
}

/// The fixed part and tail of an exec record.
fn exec_rest(parent: u64, attribution: u8, program: &str, args: &[u8], total: u32, flags: u16) -> Vec<u8> {
    let mut names: Vec<&str> = program.split('/').filter(|name| !name.is_empty()).collect();
    names.reverse();
    let path: Vec<u8> = names.iter().flat_map(|name| name.bytes().chain([0])).collect();
    let mut rest = Vec::new();
    rest.extend(5_u64.to_le_bytes());
    rest.extend(parent.to_le_bytes());
    rest.extend(total.to_le_bytes());
    rest.extend((args.len() as u32).to_le_bytes());
    rest.extend(flags.to_le_bytes());
    rest.extend([attribution, 0]);
    rest.extend(0_u32.to_le_bytes());
    for len in [path.len() as u32, 0, 5] {
        rest.extend(len.to_le_bytes());
        rest.extend([0; 8]);
        rest.extend((8_u32 << 20 | 1).to_le_bytes());
    }
    rest.extend(9_u64.to_le_bytes());
    rest.extend(path);
    rest.extend(b"home\0");
    rest.extend(args);
    rest
}

fn kinds(events: &[Event]) -> Vec<Kind> {
    events.iter().map(|event| event.kind).collect()
}

const ROOT: (u32, u64) = (100, 10);
const CHILD: (u32, u64) = (101, 20);

#[test]
fn a_session_begins_at_exec_and_ends_with_its_last_process() {
    let mut bench = Bench::new();
    let events = bench.exec(7, ROOT, Some(0), "/usr/bin/claude", b"claude\0-p\0");
    assert_eq!(kinds(&events), [Kind::SessionStart, Kind::ProcessExec]);
    let exec = &events[1];
    assert_eq!(exec.attribution, Some(How::Matched));
    assert_eq!(exec.op, Some(Op::Exec));
    assert_eq!(exec.command.as_ref().unwrap().0, "claude -p");
    let process = exec.process.as_ref().unwrap();
    assert_eq!((process.pid, process.start_time, process.uid), (100, 10, Some(1000)));
    assert_eq!(process.executable_path.0, "/usr/bin/claude");
    assert_eq!(process.cwd.0, "/home");

    let events = bench.fork(7, ROOT, CHILD);
    assert_eq!(events[0].child.as_ref().unwrap().pid, 101);
    assert_eq!(kinds(&bench.exit(7, ROOT, 3 << 8)), [Kind::ProcessExit], "a child still lives");
    let events = bench.exit(7, CHILD, 9);
    assert_eq!(kinds(&events), [Kind::ProcessExit, Kind::SessionEnd]);
    assert_eq!(events[0].exit, Some(Exit { code: None, signal: Some(9) }));
    let session = bench.state.sessions.get(7).unwrap();
    assert_eq!((session.living, session.total), (0, 2));
    assert_eq!(session.view().recognised.by, RecognisedBy::Exec);
}

#[test]
fn a_child_has_its_makers_program_and_folder_until_its_own_exec() {
    let mut bench = Bench::new();
    bench.exec(7, ROOT, Some(0), "/usr/bin/claude", b"claude\0");
    bench.fork(7, ROOT, CHILD);
    let events = bench.exit(7, CHILD, 0);
    let process = events[0].process.as_ref().unwrap();
    assert_eq!(process.executable_path.0, "/usr/bin/claude");
    assert_eq!(process.cwd.0, "/home");
}

#[test]
fn a_sub_agent_is_a_session_with_a_parent_and_leaves_the_other() {
    let mut bench = Bench::new();
    bench.exec(7, ROOT, Some(0), "/usr/bin/claude", b"claude\0");
    bench.fork(7, ROOT, CHILD);
    let events = bench.exec(8, CHILD, Some(7), "/usr/bin/codex", b"codex\0");
    let outer = bench.state.sessions.get(7).unwrap();
    assert_eq!(outer.living, 1);
    assert_eq!(events.last().unwrap().parent_session.as_deref(), Some(&*outer.id));
    assert_eq!(bench.state.sessions.get(8).unwrap().living, 1);
    let ended = bench.exit(7, ROOT, 0);
    assert_eq!(kinds(&ended), [Kind::ProcessExit, Kind::SessionEnd], "the inner one goes on by itself");
}

#[test]
fn what_a_process_did_before_it_was_launched_ends_no_session() {
    let mut bench = Bench::new();
    bench.exec(1, (10, 100), Some(0), "/usr/bin/outer", b"outer\0");
    // The daemon has made it a session already when what it did before is read.
    let mut out = Vec::new();
    bench.state.begin(2, 10, 1_000, 0, By::Launched, Some(1), None);
    bench.state.processes.get(10, 100).unwrap().session = 2;
    bench.state.entered(2, 10);
    bench.state.left(1, 1_000, &mut out);
    let before = bench.exec(1, (10, 100), None, "/usr/bin/agentwatch", b"agentwatch\0exec\0");
    assert_eq!(kinds(&before), [Kind::ProcessExec]);
    assert!(bench.state.sessions.get(2).unwrap().ended_ns.is_none());
    bench.time = 2_000;
    let within = bench.exec(2, (10, 100), None, "/usr/bin/tool", b"tool\0");
    assert_eq!(kinds(&within), [Kind::ProcessExec]);
    let ended = bench.apply(RecordKind::Exit, 2, (10, 100), &[0; 8]);
    assert!(kinds(&ended).contains(&Kind::SessionEnd));
}

#[test]
fn a_process_id_that_is_used_again_is_another_process() {
    let mut bench = Bench::new();
    bench.exec(7, ROOT, Some(0), "/usr/bin/claude", b"claude\0");
    bench.fork(7, ROOT, CHILD);
    // Its end was lost, and its number is given again.
    let later = 99_000_000;
    let events = bench.fork(7, ROOT, (CHILD.0, later));
    assert_eq!(kinds(&events), [Kind::ProcessExit, Kind::ProcessFork]);
    assert_eq!(events[0].process.as_ref().map(|process| (process.pid, process.start_time)), Some(CHILD));
    assert_eq!(events[0].exit, None, "nobody knows the status");
    assert!(events[0].reason.as_ref().unwrap().contains("not seen"));
    assert_eq!(bench.state.sessions.get(7).unwrap().living, 2);
    let events = bench.exit(7, (CHILD.0, later), 0);
    assert_eq!(events[0].process.as_ref().unwrap().start_time, later);
    assert_eq!(bench.state.sessions.get(7).unwrap().living, 1);
}

#[test]
fn what_ended_while_nobody_looked_is_told_without_a_status() {
    let mut bench = Bench::new();
    bench.exec(7, ROOT, Some(0), "/usr/bin/claude", b"claude\0");
    let mut out = Vec::new();
    bench.state.was_there(300, 7, 5, 50, &mut out);
    assert_eq!(kinds(&out), [Kind::ProcessExit], "the session goes on");
    assert_eq!((out[0].exit.clone(), out[0].process.as_ref().unwrap().pid), (None, 300));
    let written = serde_json::to_value(out[0].process.as_ref().unwrap()).unwrap();
    assert_eq!(written, serde_json::json!({"pid": 300, "start_time": 5}), "nothing is made up");
    assert_eq!(&*out[0].session, &*bench.state.sessions.get(7).unwrap().id);
    out.clear();
    bench.state.end_unseen(ROOT.0, 60, &mut out);
    assert_eq!(kinds(&out), [Kind::ProcessExit, Kind::SessionEnd]);
    assert_eq!(out[0].process.as_ref().unwrap().executable_path.0, "/usr/bin/claude");
    out.clear();
    bench.state.end_unseen(ROOT.0, 70, &mut out);
    assert!(out.is_empty(), "once is enough");
}

#[test]
fn a_session_of_an_earlier_daemon_ends_when_all_that_lives_is_known() {
    let mut before = Bench::new();
    before.exec(7, ROOT, Some(0), "/usr/bin/claude", b"claude\0");
    before.exec(8, (200, 11), Some(0), "/usr/bin/codex", b"codex\0");
    let mut after = Bench::new();
    after.state.take_over(before.state.sessions.saved());
    // A child that was there before ended meanwhile; its session goes on with another process.
    assert_eq!(kinds(&after.exit(7, CHILD, 0)), [Kind::ProcessExit]);
    let mut out = Vec::new();
    let seen = ProcessSeen { start_ticks: 1, ..ProcessSeen::default() };
    after.state.add_process(ROOT.0, Process::seen(7, &seen), 30, &mut out);
    assert!(out.is_empty(), "{out:?}");
    // Of the other one nothing is left, and no record says so.
    after.state.settle(40, &mut out);
    assert_eq!(kinds(&out), [Kind::SessionEnd]);
    assert_eq!(out[0].session, before.state.sessions.get(8).unwrap().id);
    out.clear();
    after.state.end_unseen(ROOT.0, 50, &mut out);
    assert_eq!(kinds(&out), [Kind::ProcessExit, Kind::SessionEnd]);
}

#[test]
fn a_child_that_was_found_before_its_fork_came_is_counted_once() {
    let mut bench = Bench::new();
    bench.exec(7, ROOT, Some(0), "/usr/bin/claude", b"claude\0");
    let seen = ProcessSeen { start_ticks: 4, exe: b"/bin/found".to_vec(), ..ProcessSeen::default() };
    let mut out = Vec::new();
    bench.state.add_process(CHILD.0, Process::seen(7, &seen), 30, &mut out);
    assert_eq!(kinds(&bench.fork(7, ROOT, (CHILD.0, 40_000_123))), [Kind::ProcessFork]);
    let session = bench.state.sessions.get(7).unwrap();
    assert_eq!((session.living, session.total), (2, 2));
    let events = bench.exit(7, (CHILD.0, 40_000_123), 0);
    assert_eq!(events[0].process.as_ref().unwrap().executable_path.0, "/bin/found");
}

#[test]
fn a_child_that_was_refused_is_told_and_keeps_no_session_open() {
    let mut bench = Bench::new();
    bench.exec(7, ROOT, Some(0), "/usr/bin/claude", b"claude\0");
    let events = bench.apply(RecordKind::ForkRefused, 7, ROOT, &[0; 16]);
    assert_eq!((kinds(&events), &events[0].child), (vec![Kind::ProcessFork], &None));
    assert!(events[0].reason.as_deref().unwrap().contains("table of processes"));
    assert_eq!(kinds(&bench.exit(7, ROOT, 0)), [Kind::ProcessExit, Kind::SessionEnd]);
}

#[test]
fn arguments_come_in_parts_and_missing_ones_are_told() {
    let mut bench = Bench::new();
    let first = exec_rest(0, By::MatchedExec.raw(), "/bin/x", b"x\0long", 20, 1);
    assert!(bench.apply(RecordKind::Exec, 7, ROOT, &first).is_empty(), "it waits for the rest");
    let more =
        [&6_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), &0_u16.to_le_bytes(), &[0; 6], b"est\0"].concat();
    let events = bench.apply(RecordKind::ExecArgs, 7, ROOT, &more);
    let process = events[1].process.as_ref().unwrap();
    assert_eq!(process.command_args.iter().map(|arg| arg.0.as_str()).collect::<Vec<_>>(), ["x", "longest"]);
    assert!(!process.command_args_truncated);

    bench.apply(RecordKind::Exec, 7, ROOT, &first);
    let events = bench.exit(7, ROOT, 0);
    assert_eq!(kinds(&events)[..2], [Kind::SessionStart, Kind::ProcessExec][..], "the rest was lost");
    assert!(events[1].process.as_ref().unwrap().command_args_truncated);
}

#[test]
fn a_restart_keeps_ids() {
    let mut bench = Bench::new();
    bench.exec(7, ROOT, Some(0), "/usr/bin/claude", b"claude\0");
    bench.fork(7, ROOT, CHILD);
    bench.exec(8, CHILD, Some(7), "/usr/bin/codex", b"codex\0");
    let before: Vec<_> =
        bench.state.sessions.all().map(|one| (one.id.clone(), one.parent_id.clone())).collect();
    let mut after = Bench::new();
    after.state.sessions.restore(bench.state.sessions.saved());
    let restored: Vec<_> =
        after.state.sessions.all().map(|one| (one.id.clone(), one.parent_id.clone())).collect();
    assert_eq!(before, restored);
    assert_ne!(before[0].0, before[1].0);
}

#[test]
fn losses_are_told_with_their_session() {
    let mut bench = Bench::new();
    bench.exec(7, ROOT, Some(0), "/usr/bin/claude", b"claude\0");
    let key = LossKey { session: 7, kind: RecordKind::FileOpen.raw(), reason: 1, pad: 0 };
    let event = bench.state.loss(key, 12, "ring_full", 50);
    assert_eq!(event.session, bench.state.sessions.get(7).unwrap().id);
    let loss = event.loss.unwrap();
    assert_eq!((loss.kind.as_str(), loss.count), ("file.open", 12));
    assert_eq!(bench.state.sessions.get(7).unwrap().view().losses, 12);
}

/// A path's descriptor in a record.
fn desc(len: usize) -> Vec<u8> {
    [&(len as u32).to_le_bytes()[..], &[0; 8], &(8_u32 << 20 | 1).to_le_bytes()].concat()
}

/// The fixed part and tail of a record on `/srv/job.sh`, which is opened for writing.
fn write_rest(ino: u64) -> Vec<u8> {
    let tail = b"job.sh\0srv\0";
    let mut rest = [ino.to_le_bytes(), [0; 8]].concat();
    for word in [1_u32, 0o100_755, u32::MAX, u32::MAX] {
        rest.extend(word.to_le_bytes());
    }
    for len in [tail.len(), 0, 0, 0] {
        rest.extend(desc(len));
    }
    rest.extend(tail);
    rest
}

/// The same of one that tells of the use of that file.
fn cause_rest(ino: u64, writer: u64) -> Vec<u8> {
    let tail = b"job.sh\0srv\0";
    let mut rest = [ino.to_le_bytes(), writer.to_le_bytes(), [0; 8], [1, 0, 0, 0, 0, 0, 0, 0]].concat();
    rest.extend(desc(tail.len()));
    rest.extend(desc(0));
    rest.extend(tail);
    rest
}

#[test]
fn the_use_of_what_a_session_left_behind_is_a_session_of_its_own() {
    const LATER: (u32, u64) = (300, 900);
    let mut bench = Bench::new();
    let begun = bench.exec(7, ROOT, Some(0), "/usr/bin/claude", b"claude\0");
    let mut written = bench.apply(RecordKind::FileOpen, 7, ROOT, &write_rest(12)).remove(0);
    written.seq = 5;
    bench.state.note_left_behind(&written, 7);
    bench.exit(7, ROOT, 0);

    let events = bench.apply(RecordKind::Cause, 9, LATER, &cause_rest(12, 7));
    assert_eq!(kinds(&events), [Kind::SessionStart]);
    let start = &events[0];
    assert_eq!((start.attribution, &start.agent), (Some(How::Caused), &begun[0].agent));
    assert_eq!(start.parent_session.as_ref(), Some(&begun[0].session));
    let cause = start.cause.as_ref().unwrap();
    assert_eq!(
        (cause.path.0.as_str(), &cause.session, cause.seq),
        ("/srv/job.sh", &begun[0].session, Some(5))
    );
    let reason = start.reason.as_ref().unwrap();
    assert!(
        reason.starts_with("process 300 runs /srv/job.sh, which ") && reason.contains("wrote at"),
        "{reason}"
    );
    assert_eq!(
        kinds(&bench.exec(9, LATER, None, "/bin/sh", b"sh\0")),
        [Kind::ProcessExec],
        "it began already"
    );
    let view = bench.state.sessions.get(9).unwrap().view();
    assert_eq!((&*view.mode, view.recognised.by), ("observe", RecognisedBy::Cause));

    // A restart knows it still.
    let mut next = Bench::new();
    let saved = serde_json::to_string(&bench.state.sessions.saved()).unwrap();
    next.state.take_over(serde_json::from_str(&saved).unwrap());
    let again = next.state.sessions.get(9).unwrap();
    assert_eq!((again.cause.as_ref(), again.parent_id.as_ref()), (Some(cause), Some(&begun[0].session)));

    assert_eq!(kinds(&bench.exit(9, LATER, 0)), [Kind::ProcessExit, Kind::SessionEnd]);
    assert_eq!(bench.state.caused_over, [9]);
}

#[test]
fn a_cause_of_which_little_is_known_says_what_is() {
    let mut bench = Bench::new();
    let events = bench.apply(RecordKind::Cause, 9, CHILD, &cause_rest(12, 1 << 62 | 3));
    let cause = events[0].cause.as_ref().unwrap();
    assert_eq!((&*cause.agent, cause.seq, cause.tool_call.as_ref()), ("unknown", None, None));
    assert_eq!(events[0].parent_session.as_ref(), Some(&cause.session));
}

#[test]
fn a_process_of_a_tool_call_belongs_to_it_after_a_restart() {
    use crate::control::{
        state::ProcessId,
        tool::{Begin, ToolCall},
    };
    let mut before = Bench::new();
    before.exec(7, ROOT, Some(0), "/usr/bin/claude", b"claude\0");
    let tool = ToolCall {
        id: "toolu_1".into(),
        name: "Bash".into(),
        input: serde_json::json!({"command": "make test"}),
        ..ToolCall::default()
    };
    let harness = ProcessId { pid: ROOT.0, start_time: ROOT.1 };
    before.state.calls.begin(7, harness, &Begin { tool, ..Begin::default() }, 0);
    before.fork(7, ROOT, CHILD);
    let call_of = |events: &[Event]| {
        events.last().and_then(|event| event.tool_call.clone()).map(|call| call.id.to_string())
    };
    let started = before.exec(7, CHILD, None, "/bin/sh", b"sh\0-c\0make test\0");
    assert_eq!(call_of(&started).as_deref(), Some("toolu_1"));
    let kept = serde_json::to_string(&before.state.kept_calls()).unwrap();

    let mut after = Bench::new();
    after.state.take_over(before.state.sessions.saved());
    after.state.take_over_calls(serde_json::from_str(&kept).unwrap());
    let grandchild = (CHILD.0 + 1, CHILD.1 + 1);
    assert_eq!(call_of(&after.fork(7, CHILD, grandchild)).as_deref(), Some("toolu_1"));
    let run = after.exec(7, grandchild, None, "/usr/bin/make", b"make\0test\0");
    assert_eq!(call_of(&run).as_deref(), Some("toolu_1"));
    // Another process with the number of one that ended meanwhile does not.
    let mut later = Bench::new();
    later.state.take_over(before.state.sessions.saved());
    later.state.take_over_calls(serde_json::from_str(&kept).unwrap());
    let another = later.exec(7, (CHILD.0, CHILD.1 + 20_000_000), None, "/bin/ls", b"ls\0");
    assert_eq!(call_of(&another), None);
}
