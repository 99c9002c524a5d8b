//! A small host: two coding sessions, one inside the other, and one that has ended.

use serde::Serialize;
use serde_json::{Value, to_value};

use crate::control::{intent::*, policy::*, selftest::*, state::*, tool::*};
use crate::event::{Encoding, Exit, How, ObservedText, Op, Verdict};

pub fn sessions() -> Vec<SessionView> {
    let first = SessionView {
        id: "coding-7f3k2q".into(),
        agent: "coding".into(),
        owner: Some("developer-platform@example.com".into()),
        mode: "observe".into(),
        parent: None,
        since: "2026-05-04T08:00:00Z".into(),
        ended: None,
        attribution: How::Matched,
        recognised: Recognised { by: RecognisedBy::Exec, pattern: Some("**/claude".into()), declared: true },
        root_pid: 1200,
        processes: 3,
        processes_total: 5,
        events: 3021,
        denials: 0,
        losses: 0,
        confidence: Confidence::Full,
        confidence_reason: None,
    };
    let inner = SessionView {
        id: "coding-9x8y7z".into(),
        parent: Some(first.id.clone()),
        since: "2026-05-04T08:01:00Z".into(),
        attribution: How::Launched,
        recognised: Recognised { by: RecognisedBy::Launcher, pattern: None, declared: true },
        root_pid: 1230,
        processes: 1,
        processes_total: 1,
        events: 7,
        denials: 2,
        ..first.clone()
    };
    let ended = SessionView {
        id: "aider-aaaaaa".into(),
        agent: "ai\u{1b}der".into(),
        owner: None,
        since: "2026-05-04T07:00:00Z".into(),
        ended: Some("2026-05-04T07:30:00Z".into()),
        attribution: How::Adopted,
        recognised: Recognised {
            by: RecognisedBy::Run,
            pattern: Some("python* -m aider*".into()),
            declared: false,
        },
        root_pid: 900,
        processes: 0,
        processes_total: 4,
        events: 120_000,
        losses: 14,
        confidence: Confidence::Partial,
        confidence_reason: Some("it ran before the daemon did".into()),
        ..first.clone()
    };
    vec![ended, first, inner]
}

pub fn process(pid: u32, parent: Option<ProcessId>, args: &[&str]) -> ProcessView {
    ProcessView {
        id: ProcessId { pid, start_time: u64::from(pid) * 1_000 },
        ppid: Some(parent.map_or(1, |parent| parent.pid)),
        parent,
        executable_path: ObservedText(format!("/usr/bin/{}", args[0])),
        executable_path_encoding: None,
        command_args: args.iter().map(|arg| ObservedText((*arg).to_owned())).collect(),
        command_args_encoding: None,
        uid: Some(1000),
        cwd: ObservedText("/home/dev/work".into()),
        cwd_encoding: None,
        started: "2026-05-04T08:00:00Z".into(),
        ended: None,
        exit: None,
        counts: Counts::default(),
    }
}

fn ended(process: ProcessView, exit: Exit) -> ProcessView {
    ProcessView { ended: Some("2026-05-04T08:00:09Z".into()), exit: Some(exit), ..process }
}

pub fn tree(id: &str) -> TreeView {
    let session = sessions().into_iter().find(|one| *one.id == *id).unwrap();
    let mut root = process(1200, None, &["claude", "--resume"]);
    root.counts = Counts { exec: 1, read: 120, write: 4, connect: 2, ..Counts::default() };
    let shell = process(1201, Some(root.id), &["bash", "-c", "make all; rm -rf build\n\u{1b}[2J"]);
    let mut make =
        ended(process(1202, Some(shell.id), &["make", "all"]), Exit { code: Some(2), signal: None });
    make.counts = Counts { exec: 1, read: 40, write: 12, delete: 3, ..Counts::default() };
    let mut odd = ended(process(1203, Some(shell.id), &["rm", "%FF"]), Exit { code: None, signal: Some(9) });
    odd.command_args_encoding = Some(Encoding::Percent);
    let mut server = process(1210, Some(root.id), &["python3", "-m", "http.server"]);
    server.counts = Counts { exec: 1, listen: 1, ..Counts::default() };
    TreeView { session, processes: vec![root, shell, make, odd, server], processes_omitted: 6 }
}

pub fn daemon() -> DaemonView {
    DaemonView {
        version: "0.1.0".into(),
        pid: 700,
        since: "2026-05-04T06:00:00Z".into(),
        boot_id: "6f1c8e1e-0000-4000-8000-000000000000".into(),
        kernel: "6.12.0".into(),
        log: LogView { last_seq: Some(123_028), segment: "000007.jsonl".into() },
        losses: 14,
        abilities: vec![AbilityView {
            name: "bpf-lsm".into(),
            state: AbilityState::Degraded,
            reason: Some("`bpf` is not in `lsm=`".into()),
        }],
    }
}

pub fn policy() -> PolicyView {
    let guard = PolicyGuardView {
        guard: "mount".into(),
        status: Standing::NotEnforced,
        reason: Some("this version does not have this guard yet".into()),
    };
    let rule = PolicyRuleView {
        name: "no \u{1b}[2J".into(),
        says: "deny".into(),
        file: "/etc/agentwatch.yaml".into(),
        line: 12,
        agents: Some(vec!["coding".into()]),
        during: None,
        status: Standing::Enforced,
        reasons: Vec::new(),
    };
    PolicyView {
        version: 3,
        hash: "ab".repeat(32).into(),
        since: "2026-05-04T06:00:00Z".into(),
        origin: PolicyOrigin::Files,
        path: Some("/etc/agentwatch.yaml".into()),
        files: vec!["/etc/agentwatch.yaml".into()],
        held_to: None,
        refused: Some("/etc/agentwatch.yaml:3:1: `agent` is not known here (AW0101)".into()),
        self_test: self_test(),
        agents: vec![PolicyAgentView {
            name: "coding".into(),
            owner: Some("developer-platform@example.com".into()),
            mode: "enforce".into(),
            guards: vec![guard],
        }],
        rules: vec![
            PolicyRuleView {
                name: "all".into(),
                agents: None,
                during: Some("code-freeze".into()),
                status: Standing::Partly,
                reasons: vec!["`data` is in the mode `observe`: nothing is decided".into()],
                ..rule.clone()
            },
            rule,
        ],
    }
}

pub fn self_test() -> SelfTestView {
    let result = |name: &str, reason: Option<&str>| SelfTestResult {
        name: name.into(),
        proved: reason.is_none(),
        tries: 2,
        reason: reason.map(str::to_owned),
    };
    let results = vec![
        result("read", Some("the self-test did not prove it: `open for reading` went through")),
        result("guard mount", None),
    ];
    SelfTestView { time: Some("2026-05-04T06:00:00Z".into()), skipped: None, results }
}

pub fn applied() -> AppliedView {
    AppliedView {
        version: 4,
        hash: "cd".repeat(32).into(),
        since: "2026-05-04T07:00:00Z".into(),
        kept: "/var/lib/agentwatch/applied.json".into(),
        path: Some("/etc/agentwatch.yaml".into()),
    }
}

fn file() -> PolicyFile {
    PolicyFile { name: "p.yaml".into(), text: "version: 1\n".into() }
}

pub fn intent_tool() -> IntentTool {
    IntentTool {
        id: Some("toolu_01".into()),
        name: Some("Bash".into()),
        input: Some(serde_json::json!({"command": "logrotate"})),
    }
}

pub fn intent() -> IntentView {
    IntentView {
        id: "int-7f3k2q".into(),
        session: "coding-7f3k2q".into(),
        state: IntentState::InForce,
        declared_by: DeclaredBy::Agent,
        binding: false,
        declared: "2026-05-04T08:00:00Z".into(),
        expires: "2026-05-04T09:00:00Z".into(),
        closed: None,
        uid: 1000,
        pid: Some(1234),
        prompt: None,
        task: Some("rotate \u{1b}[2J".into()),
        tool: Some(intent_tool()),
        context: vec!["doc-17".into()],
        scope: [(Op::Write, vec!["/var/log/app".to_owned()])].into(),
        plan: vec![plan_step()],
        aligned: 7,
        outside: 1,
        checks: vec![intent_check()],
    }
}

fn plan_step() -> PlanStepView {
    PlanStepView {
        step: "write /var/log/app".into(),
        verdict: Verdict::Allowed,
        reason: "no rule matches, and the agent has no default".into(),
    }
}

pub fn tool_view() -> ToolView {
    let refused = RefusedView {
        what: "delete /srv/db".into(),
        verdict: Verdict::Denied,
        rule: Some("keep the database".into()),
        reason: Some("the rule `keep the database` says `deny`: ask oncall".into()),
    };
    ToolView { refused: vec![refused], refusals: 1 }
}

/// What all the things that can be told have, in one.
fn tool_request() -> Value {
    let prompt_id = Some("p-17".to_owned());
    let end = End {
        id: "toolu_01".into(),
        reported: Some(Reported::Success),
        output: Some("done".into()),
        subagent: Some("a6d9".into()),
    };
    let bodies = [
        ToolBody::Prompt { prompt_id: prompt_id.clone(), text: Some("tidy up".into()) },
        ToolBody::Begin(Begin { tool: tool_call(), prompt_id, subagent: None }),
        ToolBody::End(end),
        ToolBody::Done { text: Some("all done".into()), subagent: None, prompt_id: Some("p-1".into()) },
        ToolBody::Over {},
        ToolBody::RelayBegin {
            tool: tool_call(),
            harness_id: Some("toolu_01".into()),
            ended: vec!["mcp-77-1".into()],
        },
        ToolBody::RelayEnd { id: "mcp-77-1".into() },
    ];
    let fields = bodies.iter().flat_map(|body| to_value(body).unwrap().as_object().unwrap().clone());
    Value::Object(fields.collect())
}

fn tool_call() -> ToolCall {
    let input = serde_json::json!({"command": "ls"});
    ToolCall {
        id: "toolu_01".into(),
        name: "Bash".into(),
        digest: Some(digest(&input)),
        input,
        counted: true,
    }
}

fn intent_check() -> IntentCheckView {
    IntentCheckView {
        passed: false,
        note: Some("3 rows \u{1b} are missing".into()),
        checked_by: DeclaredBy::Operator,
        uid: 0,
        time: "2026-05-04T09:10:00Z".into(),
    }
}

fn intent_body() -> IntentBody {
    let IntentView { task, tool, context, scope, plan, .. } = intent();
    IntentBody {
        session: Some("coding-7f3k2q".into()),
        prompt: Some("p-1".into()),
        task,
        tool,
        context,
        scope,
        plan: plan.into_iter().map(|one| one.step).collect(),
        binding: true,
        expires: Some("10m".into()),
    }
}

/// One value of each schema that the API's document names.
pub fn each_schema() -> Vec<(&'static str, Value)> {
    fn value(view: impl Serialize) -> Value {
        to_value(view).unwrap()
    }
    let session = sessions().remove(0);
    let process = tree("coding-7f3k2q").processes.remove(1);
    let error = ErrorView { error: "no".into(), code: "no".into() };
    vec![
        ("Sessions", value(SessionsView { sessions: sessions() })),
        ("Recognised", value(&session.recognised)),
        ("Session", value(session)),
        ("Tree", value(tree("coding-7f3k2q"))),
        ("ProcessId", value(process.id)),
        ("Counts", value(process.counts)),
        ("Process", value(process)),
        ("Log", value(daemon().log)),
        ("Ability", value(&daemon().abilities[0])),
        ("Daemon", value(daemon())),
        ("Policy", value(policy())),
        ("PolicyAgent", value(&policy().agents[0])),
        ("PolicyGuard", value(&policy().agents[0].guards[0])),
        ("PolicyRule", value(&policy().rules[0])),
        ("ApplyRequest", value(ApplyBody { files: vec![file()] })),
        ("PolicyFile", value(file())),
        ("Applied", value(applied())),
        ("SelfTest", value(self_test())),
        ("SelfTestResult", value(&self_test().results[0])),
        ("Intents", value(IntentsView { intents: vec![intent()] })),
        ("Intent", value(intent())),
        ("IntentTool", value(intent_tool())),
        ("IntentRequest", value(intent_body())),
        ("PlanStep", value(plan_step())),
        ("ToolRequest", tool_request()),
        ("ToolCall", value(tool_call())),
        ("Tool", value(tool_view())),
        ("Refused", value(&tool_view().refused[0])),
        ("IntentCheck", value(intent_check())),
        (
            "IntentCheckRequest",
            value(IntentCheckBody { passed: true, note: Some("all rows are there".into()) }),
        ),
        ("LaunchRequest", value(LaunchBody { agent: "coding".into() })),
        ("Launch", value(LaunchView { session: "coding-7f3k2q".into() })),
        ("Error", value(error)),
    ]
}
