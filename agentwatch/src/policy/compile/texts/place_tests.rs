//! A file is judged by every name that the host has for it.

use proptest::prelude::*;

use super::*;
use crate::places::{Found, Linked, Mounts, Places};
use crate::policy::compile::{Views, verdict_of};
use crate::policy::{Action, By, Context, Operation, Policy, Source, Target, Users, policy_of};

fn read(rules: &str) -> Policy {
    let text = format!(
        "version: 1\nagents: {{a: {{owner: o, mode: enforce, guards: {{delegate: off}}, default: {{write: deny}}}}}}\nrules:\n{rules}"
    );
    let source = Source { name: "policy.yaml".into(), text };
    let context = Context { users: &Users::default(), now_ns: 0 };
    policy_of(vec![source], context).unwrap_or_else(|problems| panic!("{problems}")).0
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "c"]), 0..4)
        .prop_map(|names| names.iter().map(|name| format!("/{name}")).collect())
}

fn rules() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c", "*", "a*", "**", "ab"]);
    let head = prop::sample::select(vec!["", "", "", "**"]);
    let pattern = (head, prop::collection::vec(name, 1..4))
        .prop_map(|(head, names)| format!("{head}/{}", names.join("/")));
    let rule = (
        prop::sample::select(vec!["allow", "log", "ask", "deny", "kill"]),
        prop::collection::vec(pattern, 1..3),
    );
    prop::collection::vec(rule, 1..4).prop_map(|rules| {
        let lines = rules.iter().enumerate().map(|(number, (verb, patterns))| {
            format!("  - {{name: r{number}, {verb}: {{read: {patterns:?}, write: {patterns:?}}}}}\n")
        });
        lines.collect()
    })
}

/// Folders of two file systems, each mounted somewhere.
fn mounts() -> impl Strategy<Value = Vec<(u32, String, String)>> {
    let mount = (1_u32..3, prop_oneof![2 => Just(String::new()), 1 => path()], path());
    prop::collection::vec(mount, 0..5)
}

fn named(text: &str) -> &str {
    if text.is_empty() { "/" } else { text }
}

/// What the evaluator says of a path: the strictest rule, or the default.
fn by_name(policy: &Policy, op: Op, name: &str) -> (bool, Action) {
    let operation = Operation { op, target: Target::Path(named(name).into()) };
    let decision = policy.decide("a", &operation, 0);
    (matches!(decision.by, By::Rule { .. }), decision.action)
}

proptest! {
    #[test]
    fn a_file_is_judged_by_all_its_names(
        rules in rules(),
        mounts in mounts(),
        within in path(),
        dev in 1_u32..3,
        seen in path(),
    ) {
        let policy = read(&rules);
        let lines: String = mounts.iter().enumerate().map(|(id, (dev, root, point))| {
            format!("{} 1 0:{dev} {} {} rw - ext4 x rw\n", id + 10, named(root), named(point))
        }).collect();
        let places = Places::new(&Mounts::parse(lines.as_bytes()), Found::default());
        let tables = compile(&policy, &Views::new(&policy).unwrap(), &places).unwrap();
        let below = |path: &str, folder: &str| {
            path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut is_exact = true;
        let mut names = vec![seen.clone()];
        for (number, (other, root, point)) in mounts.iter().enumerate() {
            if *other == dev && below(&within, root) {
                let name = format!("{point}{}", &within[root.len()..]);
                // What is hidden by another mount may still be called so.
                is_exact &= !mounts.iter().enumerate().any(|(later, (_, _, over))| {
                    below(&name, over) && (over.len() > point.len() || over == point && later > number)
                });
                names.push(name);
            }
        }
        // A part of a file system that is shown nowhere is still covered by patterns for any folder, those that allow too.
        // So is what is shown, by what the folders are called above the part that is.
        let is_mounted = mounts.iter().any(|(other, ..)| *other == dev);
        let is_whole = mounts.iter().any(|(other, root, _)| *other == dev && root.is_empty());
        is_exact &= names.len() > 1 || !is_mounted;
        is_exact &= is_whole || !is_mounted || !rules.contains("**");
        // A name that may mean something else as well opens nothing.
        is_exact &= places.aliases.iter().all(|alias| alias.trusted);
        for op in [Op::Read, Op::Write] {
            let said: Vec<(bool, Action)> = names.iter().map(|name| by_name(&policy, op, name)).collect();
            let by_rule = said.iter().filter(|(by_rule, _)| *by_rule).map(|(_, action)| *action).max();
            let expected = by_rule.unwrap_or(if op == Op::Write { Action::Deny } else { Action::Allow });
            let within = (dev, named(&within).as_bytes());
            let choice = tables.decide_place(tables.view("a"), op, named(&seen).as_bytes(), within, 0);
            let expected = verdict_of(expected).raw();
            if is_exact {
                prop_assert_eq!(choice.verdict, expected, "{:?} {:?}", op, names);
            } else if by_rule.is_some() && expected >= Verdict::Denied.raw() {
                prop_assert!(choice.verdict >= expected, "{:?} {:?}", op, names);
            }
        }
    }

    #[test]
    fn a_file_is_judged_by_the_strictest_that_rules_say_of_its_names(
        rules in rules(),
        seen in path(),
        others in prop::collection::btree_set(path(), 1..4),
    ) {
        let policy = read(&rules);
        let names = others.iter().map(|name| name.clone().into_bytes()).collect();
        let places = Places { linked: vec![Linked { dev: 7, ino: 9, names }], ..Places::default() };
        let tables = compile(&policy, &Views::new(&policy).unwrap(), &places).unwrap();
        let view = tables.view("a");
        for op in [Op::Read, Op::Write] {
            let own = by_name(&policy, op, &seen).1;
            let said = others.iter().map(|name| by_name(&policy, op, name));
            let refusals = said.filter(|(by_rule, action)| *by_rule && *action >= Action::Ask);
            let strictest = refusals.map(|(_, action)| action).fold(own, Ord::max);
            let path = named(&seen).as_bytes();
            let choice = tables.decide_file(view, op, path, (7, 9), 0);
            let expected = verdict_of(strictest).raw();
            prop_assert_eq!(choice.verdict, expected, "{:?} {} {:?}", op, seen, others);
            prop_assert_eq!(tables.decide_file(view, op, path, (7, 8), 0), tables.decide(view, op, Text::Path(path), 0));
        }
    }
}

#[test]
fn what_covers_a_file_by_another_name_holds_with_its_windows_and_exceptions() {
    let text = "
version: 1
agents:
  a: {owner: o, mode: enforce, default: {read: deny, write: log}}
windows:
  w: {from: 1970-01-01T00:00:01Z, to: 1970-01-01T00:00:02Z}
rules:
  - {name: open, allow: {read: ['/work/**', '/prod/**']}}
  - {name: prod, deny: {write: [/prod]}, unless: {write: [/prod/free]}}
  - {name: now, kill: {read: [/prod/f]}, during: w}
  - {name: told, log: {read: [/prod/f, /prod/g]}}
";
    let source = Source { name: "policy.yaml".into(), text: text.into() };
    let (policy, _) = policy_of(vec![source], Context { users: &Users::default(), now_ns: 0 }).unwrap();
    let file = |ino, names: &[&str]| Linked {
        dev: 1,
        ino,
        names: names.iter().map(|name| name.as_bytes().to_vec()).collect(),
    };
    let linked = vec![
        file(1, &["/prod/f"]),
        file(2, &["/prod/free"]),
        file(3, &["/prod/free", "/prod/g"]),
        file(4, &["/etc/cron.d/job"]),
        file(5, &["/work/x", "/none"]),
    ];
    let places = Places { linked, ..Places::default() };
    let tables = compile(&policy, &Views::new(&policy).unwrap(), &places).unwrap();
    let known: Vec<u64> = tables.linked.iter().map(|(key, _)| key.ino).collect();
    assert_eq!(known, [1, 3, 4], "of the others rules say nothing but that they are allowed, or excepted");
    let said = |op, path: &str, ino, second: u64| {
        let choice =
            tables.decide_file(tables.view("a"), op, path.as_bytes(), (1, ino), second * 1_000_000_000);
        let rule = usize::from(choice.rule).checked_sub(1).and_then(|index| policy.rules.get(index));
        (rule.map_or("", |rule| rule.name.as_str()), choice.verdict)
    };
    let (allowed, logged) = (Verdict::Allowed.raw(), Verdict::Logged.raw());
    let (denied, killed) = (Verdict::Denied.raw(), Verdict::Killed.raw());
    assert_eq!(said(Op::Write, "/work/l", 1, 0), ("prod", denied));
    assert_eq!(said(Op::Read, "/work/l", 1, 0), ("open", allowed), "no rule refuses it yet");
    assert_eq!(said(Op::Read, "/work/l", 1, 1), ("now", killed));
    assert_eq!(said(Op::Read, "/work/l", 2, 1), ("open", allowed));
    assert_eq!(said(Op::Read, "/else/l", 1, 0), ("", denied), "what another name allows is not allowed");
    assert_eq!(
        said(Op::Write, "/work/l", 2, 0),
        ("", logged),
        "it is excepted by its only name that is known"
    );
    assert_eq!(said(Op::Write, "/work/l", 3, 0), ("prod", denied), "excepted by one name alone");
    assert_eq!(said(Op::Write, "/work/l", 4, 0).1, denied, "what is protected without a rule");
    assert_eq!(said(Op::Read, "/work/l", 4, 0), ("open", allowed));
}
