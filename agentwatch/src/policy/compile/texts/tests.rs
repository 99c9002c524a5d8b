//! The tables decide as the reference evaluator does.

use agentwatch_common::rules::RULE_DEFAULT;
use proptest::prelude::*;

use super::*;
use crate::policy::address::{Address, Unix};
use crate::policy::compile::{Views, verdict_in_force};
use crate::policy::{By, Context, Mode, Operation, Policy, Source, Target, Users, policy_of, verdict};

const DAY: u64 = 86_400 * 1_000_000_000;
/// 2026-12-01.
const BEGIN: u64 = 1_796_083_200_000_000_000;

fn read(text: String) -> Policy {
    let source = Source { name: "policy.yaml".into(), text };
    let context = Context { users: &Users::default(), now_ns: 0 };
    policy_of(vec![source], context).unwrap_or_else(|problems| panic!("{problems}")).0
}

fn compiled(policy: &Policy) -> CompiledRules {
    compile(policy, &Views::new(policy).unwrap()).unwrap()
}

fn target(op: Op, text: Text<'_>) -> Target {
    match (op, text) {
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
        By::Nothing => RULE_NONE,
    };
    (rule, verdict_in_force(decision.action).raw())
}

/// Holds every agent, operation and text against the evaluator.
fn agree(policy: &Policy, tables: &CompiledRules, agents: &[&str], texts: &[Text<'_>], when_ns: u64) {
    for &agent in agents {
        let view = tables.view(agent);
        for &text in texts {
            for &op in Op::ALL {
                if matches!(text, Text::Command(_)) != (op == Op::Run) {
                    continue;
                }
                let choice = tables.decide(view, op, text, when_ns);
                let expected = reference(policy, agent, op, text, when_ns);
                assert_eq!((choice.rule, choice.verdict), expected, "{agent} {op:?} {text:?} at {when_ns}");
            }
        }
    }
}

const AGENTS: [&str; 7] = ["a", "b", "c", "o", "p", "q", "nobody"];

const HEAD: &str = "agents:
  a: {owner: o, mode: enforce}
  b: {owner: o, mode: recommend, default: {read: deny, run: log, delete: ask}}
  c: {owner: o, mode: approve, default: {connect: deny}}
  o: {owner: o, mode: observe, default: {read: deny}}
  p: {owner: o, mode: plan, default: {connect: kill, write: log, delete: kill}}
  q: {owner: o, mode: plan}
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

fn scope() -> impl Strategy<Value = String> {
    let list = |patterns: Vec<String>| {
        let quoted: Vec<String> = patterns.iter().map(|one| format!("\"{one}\"")).collect();
        format!("[{}]", quoted.join(", "))
    };
    let paths = prop::collection::vec(path_pattern(), 1..4).prop_map(list);
    let commands = prop::collection::vec(command_pattern(), 1..4).prop_map(list);
    let ops = prop::sample::subsequence(vec!["exec", "read", "write", "delete", "connect", "listen"], 1..4);
    (ops, paths, prop::option::weighted(0.4, commands)).prop_map(|(ops, paths, commands)| {
        let mut parts: Vec<String> = ops
            .iter()
            // A resource has no sockets to listen on but those to connect to, and no program.
            .map(|op| format!("{op}: {paths}"))
            .collect();
        parts.extend(commands.map(|commands| format!("run: {commands}")));
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
    let head =
        prop::sample::select(vec!["", "", "", "/tmp", "/tmpx", "/var/tmp", "/dev/null", "/dev/pts", "/r"]);
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
        days in 0_u64..8,
    ) {
        let policy = read(text);
        let tables = compiled(&policy);
        let mut texts: Vec<Text<'_>> = paths.iter().map(|path| Text::Path(path)).collect();
        texts.push(Text::Path(b"/"));
        texts.extend(commands.iter().map(|line| Text::Command(line)));
        agree(&policy, &tables, &AGENTS, &texts, BEGIN + days * DAY);
    }
}
