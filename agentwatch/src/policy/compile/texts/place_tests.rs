//! A file is judged by every name that the host has for it.

use proptest::prelude::*;

use super::*;
use crate::places::{Mounts, Places};
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
        let places = Places::new(&Mounts::parse(lines.as_bytes()), Vec::new());
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
}
