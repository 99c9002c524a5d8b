use std::collections::HashMap;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::agents::{AgentTable, Users};
use crate::matcher::AgentIndex;
use crate::policy::{Context, Source, policy_of};

/// A process; the command line's first word is the program's path, and its base name is the first argument.
/// `ppid.pgid.sid` as given.
fn process(pid: u32, ppid: u32, pgid: u32, sid: u32, line: &str) -> ProcInfo {
    let mut words = line.split(' ');
    let exe = words.next().unwrap();
    let name = exe.rsplit('/').next().unwrap();
    let arguments = std::iter::once(name).chain(words).map(|word| word.as_bytes().to_vec()).collect();
    let id = ProcId { pid, start_ticks: u64::from(pid) * 10 };
    let (exe, cgroup) = (exe.as_bytes().to_vec(), b"/user.slice".to_vec());
    ProcInfo { id, ppid, pgid, sid, exe, arguments, uid: 0, cgroup, cwd: b"/".to_vec() }
}

/// A process in its parent's group and session, which process 1 leads.
fn plain(pid: u32, ppid: u32, line: &str) -> ProcInfo {
    process(pid, ppid, 1, 1, line)
}

fn snapshot(processes: &[ProcInfo]) -> ProcSnapshot {
    ProcSnapshot { processes: processes.to_vec(), unreadable: 0 }
}

fn table(policy: &str) -> AgentTable {
    let source = Source { name: "policy.yaml".into(), text: format!("version: 1\nagents:\n{policy}") };
    let context = Context { users: &Users::default(), now_ns: 0 };
    let agents = if policy.is_empty() {
        Vec::new()
    } else {
        policy_of(vec![source], context).unwrap().0.agent_specs()
    };
    AgentTable::new(agents).unwrap()
}

fn nobody(_: ProcId) -> Option<AgentIndex> {
    None
}

/// Each session as `agent(root):members` and, in a session, ` in N`.
fn sessions(table: &AgentTable, plan: &Plan) -> Vec<String> {
    let show = |adoption: &Adoption| {
        let agent = &table.get(adoption.agent).unwrap().name;
        let root = match &adoption.root {
            Root::Process(id) => id.pid.to_string(),
            Root::Cgroup(path) => String::from_utf8_lossy(path).into_owned(),
        };
        let members: Vec<_> = adoption.members.iter().map(|member| member.pid.to_string()).collect();
        let parent = match adoption.parent {
            None => String::new(),
            Some(Enclosing::Adoption(index)) => format!(" in {index}"),
            Some(Enclosing::SessionOf(id)) => format!(" in the session of {}", id.pid),
        };
        format!("{agent}({root}):{}{parent}", members.join(","))
    };
    plan.adoptions.iter().map(show).collect()
}

fn check(policy: &str, processes: &[ProcInfo], expected: &[&str]) {
    let table = table(policy);
    let snapshot = snapshot(processes);
    let planned = plan(&snapshot, &table, &nobody);
    assert_eq!(sessions(&table, &planned), expected);
    assert_eq!(planned.joins, []);
}

#[test]
fn the_topmost_match_takes_all_that_descends_from_it_and_nothing_else() {
    check(
        "",
        &[
            plain(1, 0, "/sbin/init"),
            plain(10, 1, "/bin/bash"),
            plain(11, 10, "/usr/bin/node /usr/bin/claude"),
            plain(12, 11, "/bin/sh -c make"),
            plain(13, 12, "/usr/bin/make"),
            plain(14, 10, "/usr/bin/vim claude.md"),
            plain(15, 1, "/usr/bin/node /srv/app.js"),
        ],
        &["claude-code(11):11,12,13"],
    );
}

#[test]
fn recognised_names_the_pattern() {
    let table = table("");
    let snapshot = snapshot(&[plain(5, 1, "/home/u/.local/share/claude/versions/2.1.0")]);
    let planned = plan(&snapshot, &table, &nobody);
    assert_eq!(planned.adoptions[0].recognised, "exec `**/.local/share/claude/versions/[0-9]*`");
}

#[test]
fn launchers_relaunches_and_forks_are_one_session() {
    check(
        "",
        &[
            plain(10, 1, "/usr/bin/node /usr/bin/npx @openai/codex exec hi"),
            plain(11, 10, "/bin/sh -c codex exec hi"),
            plain(12, 11, "/usr/bin/node /root/.npm/_npx/1/node_modules/.bin/codex exec hi"),
            plain(13, 12, "/x/@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex exec hi"),
            plain(14, 13, "/x/@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex exec hi"),
            plain(20, 1, "/usr/bin/node /usr/bin/gemini -p x"),
            plain(21, 20, "/usr/bin/node --max-old-space-size=8192 /usr/bin/gemini -p x"),
        ],
        &["codex(12):12,13,14", "gemini-cli(20):20,21"],
    );
}

#[test]
fn a_tool_that_the_agents_file_carries_is_no_sub_agent() {
    let mut tool = plain(12, 11, "/home/u/.local/share/claude/versions/2.1.0 pattern");
    tool.arguments[0] = b"rg".to_vec();
    let mut main = plain(10, 1, "/home/u/.local/share/claude/versions/2.1.0");
    main.arguments[0] = b"claude".to_vec();
    let mut sub = plain(14, 13, "/home/u/.local/share/claude/versions/2.1.0 -p x");
    sub.arguments[0] = b"claude".to_vec();
    check(
        "",
        &[main, plain(11, 10, "/bin/bash -c rg"), tool, plain(13, 10, "/bin/bash -c claude"), sub],
        &["claude-code(10):10,11,12,13", "claude-code(14):14 in 0"],
    );
}

#[test]
fn sub_agents_are_sessions_with_a_parent() {
    check(
        "",
        &[
            plain(10, 1, "/usr/bin/claude"),
            plain(11, 10, "/bin/bash -c x"),
            plain(12, 11, "/usr/bin/claude -p sub"),
            plain(13, 12, "/usr/bin/codex exec deeper"),
            plain(14, 13, "/bin/ls"),
            // bash replaced itself: the parent is the agent, the arguments are others.
            plain(15, 10, "/usr/bin/claude -p sub2"),
        ],
        &[
            "claude-code(10):10,11",
            "claude-code(12):12 in 0",
            "codex(13):13,14 in 1",
            "claude-code(15):15 in 0",
        ],
    );
}

#[test]
fn what_was_given_away_is_found_by_its_group_and_session() {
    check(
        "",
        &[
            process(1, 0, 1, 1, "/sbin/init"),
            process(9, 1, 9, 9, "/bin/bash"),
            process(10, 9, 10, 9, "/usr/bin/claude"),
            // Its parent ended, its group is the agent's.
            process(20, 1, 10, 9, "/usr/bin/sleep 1"),
            process(21, 20, 10, 9, "/usr/bin/sleep 2"),
            // The agent's child began a terminal session, and something in it lost its parent.
            process(30, 10, 30, 30, "/usr/bin/tmux"),
            process(31, 1, 31, 30, "/usr/bin/make"),
            // Given away by the shell, and in a pipeline with the agent: not by it.
            process(40, 1, 9, 9, "/usr/bin/sleep 3"),
            process(41, 9, 10, 9, "/usr/bin/tee log"),
        ],
        &["claude-code(10):10,20,21,30,31"],
    );
}

const POLICY: &str = r#"
  ci: {owner: o, match: [{unit: ["ci@*.service"]}, {exec: ["**/runner"]}]}
  bot: {owner: o, match: [{user: [1001]}]}
"#;

fn in_cgroup(mut info: ProcInfo, path: &str) -> ProcInfo {
    info.cgroup = path.as_bytes().to_vec();
    info
}

#[test]
fn a_cgroup_is_one_session_however_its_processes_descend() {
    check(
        POLICY,
        &[
            in_cgroup(plain(10, 1, "/opt/runner"), "/system.slice/ci@1.service"),
            in_cgroup(plain(11, 1, "/bin/bash"), "/system.slice/ci@1.service/sub"),
            in_cgroup(plain(12, 11, "/usr/bin/claude"), "/system.slice/ci@1.service"),
            in_cgroup(plain(13, 1, "/bin/bash"), "/system.slice/ci@2.service"),
            in_cgroup(plain(14, 1, "/bin/bash"), "/system.slice/ci.service"),
        ],
        &[
            "ci(/system.slice/ci@1.service):10,11",
            "claude-code(12):12 in 0",
            "ci(/system.slice/ci@2.service):13",
        ],
    );
}

#[test]
fn an_agent_alone_in_a_cgroup_is_inside_its_session() {
    check(
        POLICY,
        &[in_cgroup(plain(10, 1, "/usr/bin/claude"), "/ci@1.service")],
        &["ci(/ci@1.service):", "claude-code(10):10 in 0"],
    );
}

#[test]
fn a_user_is_a_session_for_each_topmost_process() {
    let by = |mut info: ProcInfo| {
        info.uid = 1001;
        info
    };
    check(
        POLICY,
        &[
            plain(10, 1, "/usr/sbin/sshd"),
            by(plain(11, 10, "/bin/bash")),
            by(plain(12, 11, "/usr/bin/claude")),
            plain(13, 11, "/usr/bin/sudo ls"),
            // The policy's agent comes before the known one.
            by(plain(20, 1, "/usr/bin/codex")),
        ],
        &["bot(11):11,13", "claude-code(12):12 in 0", "bot(20):20"],
    );
}

#[test]
fn what_is_marked_is_left_alone_and_latecomers_join() {
    let table = table("");
    let claude = table.index_of("claude-code").unwrap();
    let processes = [
        plain(10, 1, "/usr/bin/claude"),
        plain(11, 10, "/bin/bash"),
        plain(12, 11, "/usr/bin/make"),
        plain(13, 11, "/usr/bin/claude -p x"),
        plain(14, 11, "/usr/bin/codex"),
    ];
    let known = |id: ProcId| [10, 11].contains(&id.pid).then_some(claude);
    let planned = plan(&snapshot(&processes), &table, &known);
    let (ten, twelve) = (processes[1].id, processes[2].id);
    assert_eq!(planned.joins, [Join { process: twelve, session_of: ten }]);
    assert_eq!(
        sessions(&table, &planned),
        ["claude-code(13):13 in the session of 11", "codex(14):14 in the session of 11"]
    );
    // The same number at another time is another process.
    let other_time = |id: ProcId| (id.pid == 10 && id.start_ticks == 1).then_some(claude);
    assert_eq!(plan(&snapshot(&processes[..1]), &table, &other_time).adoptions.len(), 1);
}

#[test]
fn nonsense_from_proc_ends_all_the_same() {
    let mut one = plain(10, 11, "/usr/bin/claude");
    let mut other = plain(11, 10, "/usr/bin/claude -p");
    (one.id.start_ticks, other.id.start_ticks) = (7, 7);
    let own = process(12, 12, 12, 12, "/usr/bin/claude");
    let planned = plan(&snapshot(&[one, other, own]), &table(""), &nobody);
    let members: usize = planned.adoptions.iter().map(|adoption| adoption.members.len()).sum();
    assert_eq!(members, 3);
}

fn forest() -> impl Strategy<Value = Vec<ProcInfo>> {
    let line = prop::sample::select(vec![
        "/bin/bash",
        "/usr/bin/claude",
        "/usr/bin/claude -p x",
        "/usr/bin/node /usr/bin/claude -p x",
        "/usr/bin/codex",
        "/opt/runner",
        "",
    ]);
    let cgroup = prop::sample::select(vec!["/user.slice", "/ci@1.service/x", "/ci@1.service"]);
    let one = (any::<prop::sample::Index>(), any::<bool>(), line, cgroup, 1000..1003_u32);
    prop::collection::vec(one, 1..30).prop_map(|seeds| {
        let mut processes: Vec<ProcInfo> = Vec::new();
        for (pid, (parent, leads, line, cgroup, uid)) in (2..).zip(seeds) {
            let parent = (!processes.is_empty()).then(|| processes[parent.index(processes.len())].clone());
            let sid = if leads { pid } else { parent.as_ref().map_or(1, |parent| parent.sid) };
            let ppid = parent.map_or(1, |parent| parent.id.pid);
            processes.push(in_cgroup(ProcInfo { uid, ..process(pid, ppid, sid, sid, line) }, cgroup));
        }
        processes
    })
}

proptest! {
    #[test]
    fn marking_a_plan_leaves_nothing_to_plan(processes in forest(), marked in prop::collection::vec(any::<bool>(), 30)) {
        // Compiled once: it is the slow part.
        static TABLE: LazyLock<AgentTable> = LazyLock::new(|| table(POLICY));
        let table = &*TABLE;
        let snapshot = snapshot(&processes);
        let first = plan(&snapshot, table, &nobody);
        let mut sessions = HashMap::new();
        for adoption in &first.adoptions {
            for member in &adoption.members {
                prop_assert!(sessions.insert(*member, adoption.agent).is_none(), "in two sessions: {member:?}");
            }
            if let Some(Enclosing::Adoption(parent)) = adoption.parent {
                prop_assert!(&first.adoptions[parent] != adoption);
            }
        }
        let again = plan(&snapshot, table, &|id| sessions.get(&id).copied());
        prop_assert!(again.is_empty(), "{again:?}");

        // With a part marked, the rest is planned, each process once, and to the same agent.
        let part: HashMap<_, _> = sessions.iter().zip(&marked).filter(|(_, is)| **is).map(|((id, agent), _)| (*id, *agent)).collect();
        let rest = plan(&snapshot, table, &|id| part.get(&id).copied());
        let mut planned: Vec<_> = rest.joins.iter().map(|join| join.process).collect();
        planned.extend(rest.adoptions.iter().flat_map(|adoption| adoption.members.iter().copied()));
        planned.extend(part.keys().copied());
        planned.sort();
        let mut expected: Vec<_> = sessions.keys().copied().collect();
        expected.sort();
        prop_assert_eq!(planned, expected);
    }
}

#[test]
fn this_very_process_is_read_from_proc() {
    let snapshot = ProcSnapshot::read().unwrap();
    let own = snapshot.processes.iter().find(|info| info.id.pid == std::process::id()).unwrap();
    let exe = std::env::current_exe().unwrap();
    assert_eq!(own.exe, exe.as_os_str().as_encoded_bytes());
    let arguments: Vec<_> = std::env::args_os().map(|argument| argument.into_encoded_bytes()).collect();
    assert_eq!(own.arguments, arguments);
    assert_eq!(own.uid, rustix::process::getuid().as_raw());
    assert_eq!(own.cwd, std::env::current_dir().unwrap().into_os_string().into_encoded_bytes());
    assert!(own.id.start_ticks > 0);
    assert_eq!(own.ppid, std::os::unix::process::parent_id());
}
