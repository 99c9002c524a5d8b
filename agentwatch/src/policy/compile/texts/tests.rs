//! The tables decide as the reference evaluator does.

use agentwatch_common::rules::{RULE_DEFAULT, RULE_GUARDS, guard};
use proptest::prelude::*;

use super::*;
use crate::places::Places;
use crate::policy::address::{Address, Unix};
use crate::policy::compile::{Views, verdict_of};
use crate::policy::{By, Context, Mode, Operation, Policy, Source, Target, Users, policy_of, verdict};

const DAY: u64 = 86_400 * 1_000_000_000;
/// 2026-12-01.
const BEGIN: u64 = 1_796_083_200_000_000_000;

fn read(text: String) -> Policy {
    let source = Source { name: "policy.yaml".into(), text };
    let context = Context { users: &Users::default(), now_ns: 0 };
    let mut policy = policy_of(vec![source], context).unwrap_or_else(|problems| panic!("{problems}")).0;
    let own = |path| vec![crate::policy::literal(std::path::Path::new(path)).unwrap()];
    let folders = vec![crate::policy::exact(std::path::Path::new("/r")).unwrap()];
    let canary = crate::policy::Canary { folders: own("/r/a/c"), program: "a".into() };
    policy.own = crate::policy::Own {
        files: own("/r/a"),
        folders,
        sockets: own("/r/s"),
        open_sockets: own("/r/d"),
        canary,
    };
    policy.add_canary();
    policy
}

fn compiled(policy: &Policy) -> CompiledRules {
    compile(policy, &Views::new(policy).unwrap(), &Places::default()).unwrap()
}

fn target(op: Op, text: Text<'_>) -> Target {
    match (op, text) {
        (_, Text::Socket([1, number @ ..])) => {
            let numbers = number.as_chunks::<4>().0;
            Target::Address(Address::Vsock {
                cid: u32::from_be_bytes(numbers[0]),
                port: u32::from_be_bytes(numbers[1]),
            })
        }
        (_, Text::Socket(text)) => Target::Address(Address::Unix(Unix::Abstract(text[1..].into()))),
        (Op::Connect | Op::Listen, Text::Path(path)) => {
            Target::Address(Address::Unix(Unix::Path(path.into())))
        }
        (_, Text::Path(path)) => Target::Path(path.into()),
        (_, Text::Command(line)) => Target::Command(line.into()),
    }
}

/// The number of the rule that the evaluator finds, as the tables number it, and the verdict.
fn reference(policy: &Policy, agent: &str, op: Op, text: Text<'_>, when_ns: u64) -> (u16, u8) {
    let decision = policy.decide(agent, &Operation { op, target: target(op, text) }, when_ns);
    if decision.mode == Mode::Observe {
        assert_eq!(verdict(decision.mode, decision.action), crate::event::Verdict::Allowed);
        return (RULE_NONE, Verdict::Allowed.raw());
    }
    let rule = match decision.by {
        By::Rule { index, .. } => u16::try_from(index + 1).unwrap(),
        By::Default | By::Plan => RULE_DEFAULT,
        By::Protection(protection) => RULE_GUARDS + u16::try_from(protection.number()).unwrap(),
        By::Nothing | By::Open => RULE_NONE,
    };
    (rule, verdict_of(decision.action).raw())
}

/// Holds every agent, operation and text against the evaluator.
fn agree(policy: &Policy, tables: &CompiledRules, agents: &[&str], texts: &[Text<'_>], when_ns: u64) {
    for &agent in agents {
        let view = tables.view(agent);
        for &text in texts {
            for &op in Op::ALL {
                let is_for_sockets = matches!(op, Op::Connect | Op::Listen);
                if matches!(text, Text::Command(_)) != (op == Op::Run)
                    || matches!(text, Text::Socket(_)) && !is_for_sockets
                {
                    continue;
                }
                let choice = tables.decide(view, op, text, when_ns);
                let expected = reference(policy, agent, op, text, when_ns);
                assert_eq!((choice.rule, choice.verdict), expected, "{agent} {op:?} {text:?} at {when_ns}");
            }
        }
    }
}

const AGENTS: [&str; 8] = ["a", "b", "c", "o", "p", "q", "nobody", crate::policy::CANARY];

const HEAD: &str = "agents:
  a: {owner: o, mode: enforce, guards: {delegate: [/b/b, \"unix:@a*\"]}}
  b: {owner: o, mode: recommend, default: {read: deny, run: log, delete: ask, write: kill}, guards: {delegate: [/b/b, /a/b]}}
  c: {owner: o, mode: approve, default: {connect: deny}, guards: {delegate: off}}
  o: {owner: o, mode: observe, default: {read: deny}}
  p: {owner: o, mode: plan, default: {connect: kill, write: log, delete: kill}}
  q: {owner: o, mode: plan, scratch: [/a, /b/*, '/ab/**/a']}
windows:
  v: {from: 2026-12-02T00:00:00Z, to: 2026-12-05T00:00:00Z}
  w: {from: 2026-12-04T00:00:00Z, to: 2026-12-07T00:00:00Z}
resources:
  r: {connect: [/r/s, \"10.0.0.0/8:1\"], files: [/r, \"/a/*/r\"]}
";

fn path_pattern() -> impl Strategy<Value = String> {
    let name =
        prop::sample::select(vec!["a", "b", "ab", "*", "a*", "?", "**", "[ab]", "{a,b}", "*b", "r", "tmp"]);
    let head = prop::sample::select(vec!["", "", "", "/tmp", "**", "/dev/null", "/r"]);
    let plain = (head, prop::collection::vec(name, 1..4))
        .prop_map(|(head, names)| format!("{head}/{}", names.join("/")));
    prop_oneof![12 => plain, 1 => Just("resource:r".to_owned()), 1 => Just("/".to_owned()), 1 => Just("/**".to_owned())]
}

fn command_pattern() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec!["a", "b", " ", "/", "*", "*", "?", "[a-b]", "{a,b b*}"]);
    prop::collection::vec(piece, 0..5).prop_map(|pieces| format!("a{}", pieces.concat()))
}

fn socket_pattern() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec!["a", "b", "*", "?", "/", "[a-b]", "{a,b*}"]);
    let name = prop::collection::vec(piece, 1..4).prop_map(|pieces| format!("unix:@{}", pieces.concat()));
    let cid = prop::sample::select(vec!["*", "2", "4294967295"]);
    let ports = prop::sample::select(vec!["*", "1", "5,255-256", "250-66000", "4294967295"]);
    prop_oneof![name, (cid, ports).prop_map(|(cid, ports)| format!("vsock:{cid}:{ports}"))]
}

/// A socket without a path, as text.
fn socket() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::collection::vec(prop::sample::select(b"aab/\0\xff".to_vec()), 0..4)
        .prop_map(|name| Address::Unix(Unix::Abstract(name)));
    let cid = prop::sample::select(vec![1, 2, u32::MAX]);
    let port = prop::sample::select(vec![0, 1, 5, 254, 255, 256, 257, 65_535, 66_000, 66_001, u32::MAX]);
    prop_oneof![name, (cid, port).prop_map(|(cid, port)| Address::Vsock { cid, port })]
        .prop_map(|address| socket_text(&address).unwrap())
}

fn scope() -> impl Strategy<Value = String> {
    let list = |patterns: Vec<String>| {
        let quoted: Vec<String> = patterns.iter().map(|one| format!("\"{one}\"")).collect();
        format!("[{}]", quoted.join(", "))
    };
    let paths = prop::collection::vec(path_pattern(), 1..4).prop_map(list);
    let commands = prop::collection::vec(command_pattern(), 1..4).prop_map(list);
    let sockets = prop::collection::vec(socket_pattern(), 1..3).prop_map(list);
    let sockets = (prop::sample::select(vec!["connect", "listen"]), sockets);
    let ops = prop::sample::subsequence(vec!["exec", "read", "write", "delete", "connect", "listen"], 1..4);
    let more = (prop::option::weighted(0.4, commands), prop::option::weighted(0.4, sockets));
    (ops, paths, more).prop_map(|(ops, paths, (commands, sockets))| {
        let by_path = |op: &&&str| sockets.as_ref().is_none_or(|(other, _)| *other != **op);
        let mut parts: Vec<String> = ops.iter().filter(by_path).map(|op| format!("{op}: {paths}")).collect();
        parts.extend(commands.map(|commands| format!("run: {commands}")));
        parts.extend(sockets.as_ref().map(|(op, sockets)| format!("{op}: {sockets}")));
        format!("{{{}}}", parts.join(", "))
    })
}

fn rule() -> impl Strategy<Value = String> {
    (
        prop::sample::select(vec!["allow", "log", "ask", "deny", "kill"]),
        scope(),
        prop::option::weighted(0.3, scope()),
        prop::option::weighted(0.5, prop::sample::select(vec!["[a]", "[b, p]", "[a, b]", "[q, o]", "[o]"])),
        prop::option::weighted(0.4, prop::sample::select(vec!["v", "w"])),
    )
        .prop_map(|(action, scope, unless, agents, during)| {
            let unless = unless.map(|unless| format!(", unless: {unless}")).unwrap_or_default();
            let agents = agents.map(|agents| format!(", agents: {agents}")).unwrap_or_default();
            let during = during.map(|during| format!(", during: {during}")).unwrap_or_default();
            format!("{action}: {scope}{unless}{agents}{during}")
        })
}

fn policy_text() -> impl Strategy<Value = String> {
    prop::collection::vec(rule(), 0..8).prop_map(|rules| {
        let rules: String =
            rules.iter().enumerate().map(|(n, rule)| format!("  - {{name: r{n}, {rule}}}\n")).collect();
        format!("version: 1\n{HEAD}rules:\n{rules}")
    })
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec!["a", "b", "ab", "aab", "r", "s", "x", "tmp", "a\u{e9}"]);
    let head = prop::sample::select(vec![
        "",
        "",
        "",
        "/tmp",
        "/tmpx",
        "/var/tmp",
        "/dev/null",
        "/dev/pts",
        "/r",
        "/r/a",
        "/r/a/c",
        "/r/s",
        "/r/d",
        "/b/b",
        "/run/user/7/bus",
        "/etc/cron.d",
    ]);
    (head, prop::collection::vec(name, 0..5)).prop_map(|(head, names)| {
        let text: String = names.iter().fold(head.to_owned(), |text, name| format!("{text}/{name}"));
        if text.is_empty() { b"/".to_vec() } else { text.into_bytes() }
    })
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"aabb  /x\xff".to_vec()), 0..8)
        .prop_map(|rest| [b"a", rest.as_slice()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_policies_decide_as_the_evaluator(
        text in policy_text(),
        paths in prop::collection::vec(path(), 12),
        commands in prop::collection::vec(command(), 12),
        sockets in prop::collection::vec(socket(), 12),
        days in 0_u64..8,
    ) {
        let policy = read(text);
        let tables = compiled(&policy);
        let mut texts: Vec<Text<'_>> = paths.iter().map(|path| Text::Path(path)).collect();
        texts.push(Text::Path(b"/"));
        texts.push(Text::Command(b"a --version"));
        texts.extend(commands.iter().map(|line| Text::Command(line)));
        texts.extend(sockets.iter().map(|socket| Text::Socket(socket)));
        agree(&policy, &tables, &AGENTS, &texts, BEGIN + days * DAY);
    }
}

/// Rules of the shapes that policies have, with so many path patterns and a fifth as many of commands.
fn large(patterns: usize) -> (Policy, Vec<String>, Vec<String>) {
    let words =
        ["prod", "stage", "billing", "vault", "ledger", "etcd", "mail", "deploy", "audit", "edge", "core"];
    let word = |n: usize| words[n % words.len()];
    let path = |n: usize| match n % 10 {
        0..3 => format!("/srv/{}/{}{n}", word(n / 10), word(n / 7)),
        3 | 4 => format!("/home/*/.{}{n}/key*", word(n / 3)),
        5 | 6 => format!("/etc/{}{n}.conf", word(n)),
        7 | 8 => format!("/usr/{{bin,sbin}}/{}{n}*", word(n / 5)),
        _ if n % 100 == 99 => format!("**/{}{n}.env", word(n / 9)),
        _ => format!("/var/lib/{}/*/data{n}", word(n / 9)),
    };
    let command = |n: usize| match n % 3 {
        0 => format!("{}{n} apply*", word(n)),
        1 => format!("{}{n} push*--force*", word(n / 2)),
        _ => format!("{}{n} *destroy*", word(n / 3)),
    };
    let paths: Vec<String> = (0..patterns).map(path).collect();
    let commands: Vec<String> = (0..patterns / 5).map(command).collect();
    let quoted = |list: &[String]| list.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", ");
    let actions = ["deny", "log", "ask", "kill", "allow"];
    let heads = ["", ", agents: [a]", ", during: v"];
    let ops = ["read", "write", "exec", "delete"];
    let mut rules = String::new();
    for (n, chunk) in paths.chunks(10).enumerate() {
        let (action, head, op) = (actions[n % 5], heads[n / 4 % 3], ops[n % 4]);
        rules.push_str(&format!("  - {{name: p{n}, {action}: {{{op}: [{}]}}{head}}}\n", quoted(chunk)));
    }
    for (n, chunk) in commands.chunks(10).enumerate() {
        let (action, head) = (actions[n % 5], heads[n % 3]);
        rules.push_str(&format!("  - {{name: c{n}, {action}: {{run: [{}]}}{head}}}\n", quoted(chunk)));
    }
    (read(format!("version: 1\n{HEAD}rules:\n{rules}")), paths, commands)
}

/// A text that a pattern of [`large`] covers.
fn covered(pattern: &str) -> String {
    pattern.replace("{bin,sbin}", "sbin").replace("**", "/srv/x").replace('*', "-1 ")
}

#[test]
fn a_thousand_paths_and_two_hundred_commands_fit_and_decide_as_the_evaluator() {
    let (policy, paths, commands) = large(1_000);
    let tables = compiled(&policy);
    let (states, steps) = (tables.automaton.states.len(), tables.automaton.steps.len());
    // Room for twice as many, with room in the decisions too.
    assert!(states * 2 < RULE_STATES as usize && steps * 2 < RULE_STEPS as usize, "{states}, {steps}");
    assert!(tables.decisions.len() * 2 < DECISIONS_MAX, "{} decisions", tables.decisions.len());
    let paths: Vec<String> = paths.iter().step_by(37).map(|pattern| covered(pattern)).collect();
    let commands: Vec<String> = commands.iter().step_by(17).map(|pattern| covered(pattern)).collect();
    let paths = paths.iter().map(|path| Text::Path(path.as_bytes()));
    let commands = commands.iter().map(|line| Text::Command(line.as_bytes()));
    let texts: Vec<Text<'_>> =
        paths.chain(commands).chain([Text::Path(b"/"), Text::Path(b"/srv/none")]).collect();
    agree(&policy, &tables, &["a", "b", "p"], &texts, BEGIN + 2 * DAY);
}

#[test]
fn ten_thousand_paths_and_a_thousand_commands_fit() {
    let path = |n: usize| match n % 10 {
        0..4 => format!("/srv/tenant-{:05}/data/secret-{n}", n * 7919 % 100_000),
        4..7 => format!("/home/user{}/.config/app{n}/token", n % 100),
        7 | 8 => format!("/home/*/.{n}/key*"),
        _ if n % 1_000 == 999 => format!("**/secret-{n}.env"),
        _ => format!("/etc/service-{n}.d"),
    };
    let quoted = |list: Vec<String>| list.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", ");
    let commands = quoted((0..1_000).map(|n| format!("tool{n} *destroy*")).collect());
    let mut rules = format!("  - {{name: commands, deny: {{run: [{commands}]}}}}\n");
    for first in (0..10_000).step_by(1_000) {
        let paths = quoted((first..first + 1_000).map(path).collect());
        rules.push_str(&format!("  - {{name: r{first}, deny: {{read: [{paths}]}}}}\n"));
    }
    let policy = read(format!("version: 1\nagents:\n  a: {{owner: o, mode: enforce}}\nrules:\n{rules}"));
    let tables = compiled(&policy);
    let view = tables.view("a");
    let denied = Verdict::Denied.raw();
    for n in (0..10_000).step_by(997) {
        let text = covered(&path(n));
        assert_eq!(
            tables.decide(view, Op::Read, Text::Path(text.as_bytes()), BEGIN).verdict,
            denied,
            "{text}"
        );
    }
    for (line, is_denied) in [("tool999 -x destroy", true), ("tool1000 destroy", false)] {
        let found = tables.decide(view, Op::Run, Text::Command(line.as_bytes()), BEGIN);
        assert_eq!(found.verdict == denied, is_denied, "{line}");
    }
}

#[test]
fn ten_thousand_rules_each_decide_for_themselves() {
    // The first is about any folder, so that each state of the others has more than one way on.
    let pattern = |n: usize| if n == 0 { "**/.env".to_owned() } else { format!("/srv/tenant-{n}/*.key") };
    let rules: String =
        (0..10_000).map(|n| format!("  - {{name: r{n}, deny: {{read: ['{}']}}}}\n", pattern(n))).collect();
    let policy = read(format!("version: 1\nagents:\n  a: {{owner: o, mode: enforce}}\nrules:\n{rules}"));
    let tables = compiled(&policy);
    let view = tables.view("a");
    let decided = |path: &str| {
        let choice = tables.decide(view, Op::Read, Text::Path(path.as_bytes()), BEGIN);
        (choice.verdict == Verdict::Denied.raw()).then_some(choice.rule)
    };
    for n in (1..10_000_u16).step_by(997) {
        let folder = format!("/srv/tenant-{n}");
        assert_eq!(decided(&format!("{folder}/a.key")), Some(n + 1));
        assert_eq!(decided(&format!("{folder}/.env")), Some(1));
        assert_eq!(decided(&format!("{folder}/a.key/b")), None);
    }
}

#[test]
fn the_automaton_is_written_whole_over_another() {
    let policy = |rule: &str| read(format!("version: 1\n{HEAD}rules:\n  - {{name: n, {rule}}}\n"));
    let large = compiled(&policy("deny: {read: [/srv/payments/ledger], run: [\"rm *\"]}"));
    let small = compiled(&policy("deny: {read: [/x]}"));
    // SAFETY: integers and arrays of integers, for all of which zero is a value.
    let tables = crate::kernel::rules::AutomatonTables::empty;
    let write = |rules: &CompiledRules, to: &mut crate::kernel::rules::AutomatonTables| {
        rules.write_automaton(&mut to.head, &mut to.states.0, &mut to.steps.0);
    };
    let (mut used, mut fresh) = (tables(), tables());
    write(&large, &mut used);
    write(&small, &mut used);
    write(&small, &mut fresh);
    assert_eq!(used.head.start_path, fresh.head.start_path);
    assert_eq!(used.head.start_command, small.automaton.starts[1]);
    assert_eq!(used.head.class, fresh.head.class);
    let states = |tables: &crate::kernel::rules::AutomatonTables| {
        tables
            .states
            .0
            .states
            .iter()
            .map(|state| (state.base, state.default, state.accept))
            .collect::<Vec<_>>()
    };
    let steps = |tables: &crate::kernel::rules::AutomatonTables| {
        tables.steps.0.steps.iter().map(|step| (step.owner, step.next)).collect::<Vec<_>>()
    };
    assert!(states(&used) == states(&fresh) && steps(&used) == steps(&fresh));
    let accepting = |states: &[(u32, u32, u32)]| states.iter().filter(|(.., set)| *set != 0).count();
    assert_eq!(
        accepting(&states(&used)),
        small.automaton.states.iter().filter(|state| state.accept != 0).count()
    );
}

#[test]
fn more_windows_on_a_target_than_a_decision_holds_are_refused() {
    let text = |count: usize, default: &str| {
        let windows: String = (0..count)
            .map(|n| format!("  w{n}: {{from: 2026-12-0{}T00:00:00Z, to: 2026-12-09T00:00:00Z}}\n", n + 1))
            .collect();
        let rules: String =
            (0..count).map(|n| format!("  - {{name: r{n}, deny: {{read: [/x]}}, during: w{n}}}\n")).collect();
        format!(
            "version: 1\nagents:\n  a: {{owner: o, mode: enforce{default}}}\nwindows:\n{windows}rules:\n{rules}"
        )
    };
    let result = |text: String| {
        let policy = read(text);
        compile(&policy, &Views::new(&policy).unwrap(), &Places::default()).map(|_| ())
    };
    assert_eq!(result(text(4, "")), Ok(()));
    let too_many = |rule: &str| Err(TextsError::TooManyChoices(TooManyChoices { rule: rule.into() }));
    assert_eq!(result(text(5, "")), too_many("r4"));
    assert_eq!(result(text(4, ", default: {read: log}")), too_many("r3"));
}

#[test]
fn a_folder_is_not_moved_from_above_what_a_rule_refuses() {
    let tables = compiled(&read(
        "version: 1\nagents:\n  a: {owner: o, mode: enforce}\n  b: {owner: o, mode: enforce}\nrules:\n  \
         - {name: one, agents: [a], deny: {read: [/srv/prod/db]}}\n  \
         - {name: two, agents: [a], deny: {write: [\"/home/*/.ssh/id_*\", \"/data/**/keep\", \"**/.env\"]}}\n  \
         - {name: socket, agents: [a], deny: {connect: [/run/db/s]}}\n  \
         - {name: told, agents: [a], log: {read: [/var/log/x/y]}}\n"
            .to_owned(),
    ));
    let rule = |agent: &str, from: &str, to: &str| {
        tables.decide_move(tables.view(agent), from.as_bytes(), to.as_bytes(), BEGIN).rule
    };
    for (from, to, by) in [
        ("/srv", "/srv2", 1),
        ("/srv/prod", "/tmp/prod", 1),
        ("/srv/prod/db", "/tmp/db", 1),
        ("/home", "/house", 2),
        ("/home/ada", "/home/ada/old", 2),
        ("/home/ada/.ssh", "/home/ada/ssh", 2),
        ("/data/a/b", "/tmp/b", 2),
        ("/run/db", "/run/other", 3),
        ("/run", "/r", 3),
    ] {
        assert_eq!(rule("a", from, to), by, "{from} to {to}");
        assert_eq!(rule("b", from, to), RULE_NONE, "{from} to {to} by another");
    }
    for (from, to) in [
        ("/srv/other", "/srv/new"),
        ("/srv/prod2", "/tmp/prod2"),
        ("/tmp/a", "/tmp/b"),
        ("/tmp/.en", "/tmp/x"),
        // What is below is covered as before.
        ("/home/ada", "/home/bob"),
        ("/data/a/b", "/data/c"),
        ("/srv/prod/db/a", "/srv/prod/db/b"),
        ("/var/log/x", "/var/log/z"),
    ] {
        assert_eq!(rule("a", from, to), RULE_NONE, "{from} to {to}");
    }
}

#[test]
fn observed_agents_are_not_asked_about() {
    let policy =
        read(format!("version: 1\n{HEAD}rules:\n  - {{name: n, deny: {{read: [/x]}}, agents: [o]}}\n"));
    let tables = compiled(&policy);
    assert_eq!(tables.view("o"), CompiledRules::OTHERS);
    assert_eq!(tables.view("nobody"), CompiledRules::OTHERS);
    let bits = |ops: &[u32]| ops.iter().fold(0, |bits, op| bits | 1 << op);
    use agentwatch_common::rules::op;
    // What is protected from all agents is asked about.
    let protected = [op::WRITE, op::DELETE, op::CONNECT];
    assert_eq!((tables.view("a").ops, tables.view("a").enforce), (bits(&protected), 1));
    assert_eq!(tables.view("b").ops, bits(&[&protected[..], &[op::READ, op::RUN]].concat()));
    assert_eq!(tables.view("b").enforce, 0);
    assert_eq!(tables.view("q").ops, bits(&protected));
    // The rule of the observed agent is not in the tables.
    let choices = tables.decisions.iter().flat_map(|(_, decision)| decision.choices);
    let is_rule = |choice: &Choice| choice.verdict != 0 && choice.rule == 1;
    assert_eq!(choices.filter(is_rule).count(), 0);
}

#[test]
fn guards_are_on_unless_the_policy_says_off() {
    let policy = read(
        "version: 1\nagents:\n  a: {owner: o, mode: enforce, guards: {mount: off, delegate: off}}\n  \
         b: {owner: o, mode: recommend}\n  o: {owner: o}\n"
            .into(),
    );
    let tables = compiled(&policy);
    let all = (1 << guard::COUNT) - 1;
    assert_eq!(tables.view("a").guards, all & !(1 << guard::MOUNT | 1 << guard::DELEGATE));
    assert_eq!(tables.view("b").guards, all);
    assert_eq!((tables.view("o").guards, tables.view("nobody").guards), (0, 0));
}

#[test]
fn no_rule_opens_what_is_protected() {
    let rules = "rules:\n  - {name: open, allow: {connect: [/**], write: [/**], delete: [/**]}}\n  \
                 - {name: kills, kill: {write: [/etc/cron.d/x]}}\n";
    let policy = read(format!("version: 1\nagents:\n  a: {{owner: o, mode: enforce}}\n{rules}"));
    let tables = compiled(&policy);
    let view = tables.view("a");
    let decided = |op, path: &str| {
        let choice = tables.decide(view, op, Text::Path(path.as_bytes()), BEGIN);
        (choice.rule, choice.verdict)
    };
    let refused = |guard: u32| (RULE_GUARDS + guard as u16, Verdict::Denied.raw());
    assert_eq!(decided(Op::Connect, "/run/docker.sock"), refused(guard::DELEGATE));
    assert_eq!(decided(Op::Write, "/etc/cron.d/y"), refused(guard::DELEGATE));
    assert_eq!(decided(Op::Write, "/etc/cron.d/x"), (2, Verdict::Killed.raw()));
    assert_eq!(decided(Op::Delete, "/r/a/b"), refused(guard::OWN));
    assert_eq!(decided(Op::Delete, "/r"), refused(guard::OWN));
    assert_eq!(decided(Op::Write, "/r"), (1, Verdict::Allowed.raw()));
    assert_eq!(decided(Op::Connect, "/r/s"), refused(guard::OWN));
    assert_eq!(decided(Op::Connect, "/r/t"), (1, Verdict::Allowed.raw()));
    agree(&policy, &tables, &["a"], &[Text::Path(b"/etc/cron.d/x"), Text::Path(b"/r/a/b")], BEGIN);
}
