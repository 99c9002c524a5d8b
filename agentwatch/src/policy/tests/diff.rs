//! What differs in two policies.

use super::*;

const A: &str = r#"version: 1
resources: {db: {why: w, connect: ["10.20.0.0/16:5432"]}, old: {files: [/old]}}
agents: {a: {owner: o, mode: enforce, default: {connect: deny}, guards: {bpf: on}}}
windows: {w: {from: 2026-12-01T00:00:00Z, to: 2026-12-05T00:00:00Z}}
rules:
  - {name: one, deny: {connect: ["resource:db", "*:22"]}, message: m}
  - {name: two, agents: [a], during: w, allow: {read: [/x, /y]}}
tests:
  - {agent: a, connect: ["10.20.0.1:5432", "1.1.1.1:22", "1.1.1.1:23"], expect: deny}
  - {agent: a, connect: "1.1.1.1:22", expect: deny}
"#;

fn policy(text: &str) -> Policy {
    read(text).unwrap().0
}

fn said(before: &str, after: &str) -> Changes {
    changes(&policy(before), &policy(after), NOW)
}

#[test]
fn spelling_and_order_mean_nothing() {
    let same = "# another\nversion: 1\nrules:\n  - agents: [a]\n    during: w\n    name: two\n    allow:\n      read: [/y, /x]\n  - {name: one, message: m, deny: {connect: [\"*:22\", \"resource:db\"]}}\nagents: {a: {mode: enforce, owner: o, default: {connect: deny}}}\nwindows: {w: {from: 2026-12-01T01:00:00+01:00, to: 2026-12-05T00:00:00Z}}\nresources: {old: {files: [/old]}, db: {why: w, connect: [\"10.20.0.0/16:5432\"]}}\n";
    assert_eq!(said(A, same), Changes::default());
    assert_eq!(said(A, A), Changes::default());
}

#[test]
fn what_means_something_else_is_told_with_what_it_does_to_the_tests() {
    let other = A
        .replace("\"*:22\"", "\"*:23\"")
        .replace("old: {files: [/old]}", "new: {files: [/new]}")
        .replace("default: {connect: deny}", "default: {connect: log}")
        .replace("guards: {bpf: on}", "guards: {bpf: off}")
        .replace("to: 2026-12-05T00:00:00Z", "to: 2026-12-06T00:00:00.5Z");
    let found = said(A, &other);
    let parts: Vec<_> = found.parts.iter().map(|part| (part.part, part.name.as_str(), part.change)).collect();
    assert_eq!(
        parts,
        [
            ("resource", "old", Kind::Removed),
            ("resource", "new", Kind::Added),
            ("agent", "a", Kind::Changed),
            ("window", "w", Kind::Changed),
            ("rule", "one", Kind::Changed),
        ]
    );
    assert_eq!(found.parts[2].removed, ["default connect: deny"]);
    assert_eq!(found.parts[2].added, ["default connect: log", "guard bpf: off"]);
    assert_eq!(
        (found.parts[4].removed.as_slice(), found.parts[4].added.as_slice()),
        (&["deny connect: *:22".to_owned()][..], &["deny connect: *:23".to_owned()][..])
    );
    assert_eq!(found.parts[3].removed, ["to: 2026-12-05T00:00:00Z"]);
    assert_eq!(found.parts[3].added, ["to: 2026-12-06T00:00:00.500000000Z"]);
    let decisions: Vec<_> = found
        .decisions
        .iter()
        .map(|one| (one.operation.as_str(), one.before.decided, one.after.decided, one.after.rule.as_deref()))
        .collect();
    // Once, although two tests try it. Port 23 was refused by the default, and is by the rule.
    assert_eq!(decisions, [("connect 1.1.1.1:22", "deny", "log", None)]);
}
