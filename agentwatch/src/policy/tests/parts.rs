//! Resources, windows, rules, guards, breakers, tests: read, or refused with their places.

use super::*;
use crate::event::Op;

const PARTS: &str = r#"version: 1
resources:
  db: {why: w, owner: o, environment: production, connect: ["10.20.0.0/16:5432", /run/db.sock], files: [/srv/db]}
agents:
  coding:
    owner: o
    mode: enforce
    default: {connect: deny, write: log}
    guards: {raw-socket: off, delegate: [/run/broker.sock, "unix:@b"]}
    breakers:
      - {when: {denied: 5, within: 60s}, then: quarantine}
      - {when: {delete: 200, within: 1h30m}, then: freeze}
      - {when: {touches: "resource:db"}, then: kill}
windows:
  freeze: {from: 2026-12-20T00:00:00Z, to: 2027-01-04T01:00:00+01:00}
rules:
  - name: db
    deny: {connect: ["resource:db", "*:22"], read: ["resource:db"]}
    message: no
    unless: {connect: ["127.0.0.0/8:*"]}
  - {name: asks, agents: [coding], during: freeze, ask: {run: ["rm *"]}, timeout: 10m, then: freeze}
tests:
  - {name: one, agent: coding, connect: ["10.20.1.1:5432", "x.example.com:22"], expect: denied, rule: db}
  - {agent: other, run: /usr/bin/rm x, expect: would-deny, at: 2026-12-24T00:00:00Z, names: [n]}
"#;

#[test]
fn every_part_is_read() {
    let (policy, warnings) = read(PARTS).unwrap();
    assert_eq!(
        places(&warnings),
        [
            (Code::NotEnforcedYet, 11, 9),
            (Code::NotEnforcedYet, 12, 9),
            (Code::NotEnforcedYet, 13, 9),
            (Code::NotEnforcedYet, 21, 52),
            (Code::NotEnforcedYet, 21, 88),
            (Code::UndeclaredAgent, 24, 13),
        ]
    );
    let db = &policy.resources[0];
    assert_eq!(
        (db.why.as_deref(), db.owner.as_deref(), db.environment.as_deref()),
        (Some("w"), Some("o"), Some("production"))
    );
    assert_eq!((db.connect.len(), db.files[0].text()), (2, "/srv/db"));
    let coding = policy.agent("coding").unwrap();
    assert_eq!(coding.default_for(Op::Connect), Some(Action::Deny));
    assert_eq!(coding.default_for(Op::Read), None);
    let off: Vec<_> = Guard::ALL.into_iter().filter(|guard| !coding.guards(*guard)).collect();
    assert_eq!(off, [Guard::RawSocket]);
    assert_eq!(
        coding.delegates.iter().map(AddressPattern::text).collect::<Vec<_>>(),
        ["/run/broker.sock", "unix:@b"]
    );
    let triggers: Vec<_> = coding.breakers.iter().map(|breaker| (breaker.trigger, breaker.then)).collect();
    assert_eq!(
        triggers,
        [
            (Trigger::Denied { count: 5, within_s: 60 }, Containment::Quarantine),
            (Trigger::Operations { op: Op::Delete, count: 200, within_s: 5400 }, Containment::Freeze),
            (Trigger::Touches(0), Containment::Kill),
        ]
    );
    let freeze = &policy.windows[0];
    assert_eq!((freeze.from_ns, freeze.to_ns), (1_797_724_800_000_000_000, 1_799_020_800_000_000_000));
    assert!(freeze.contains(freeze.from_ns) && !freeze.contains(freeze.to_ns));
}

#[test]
fn rules_and_tests_are_read() {
    let (policy, _) = read(PARTS).unwrap();
    let [rule, asks] = policy.rules.as_slice() else { panic!("{:?}", policy.rules) };
    assert_eq!((rule.name.as_str(), rule.action, rule.message.as_deref()), ("db", Action::Deny, Some("no")));
    assert_eq!(rule.scope.patterns(Op::Connect).texts(&policy), ["resource:db", "*:22"]);
    assert_eq!(rule.unless.patterns(Op::Connect).texts(&policy), ["127.0.0.0/8:*"]);
    assert_eq!((rule.agents.as_deref(), rule.during, rule.timeout_s, rule.then), (None, None, None, None));
    assert_eq!((asks.agents.as_deref(), asks.during), (Some(&[0][..]), Some(0)));
    assert_eq!((asks.timeout_s, asks.then), (Some(600), Some(Containment::Freeze)));
    let [one, two] = &*policy.cases else { panic!("{:?}", policy.cases) };
    assert_eq!(
        (one.operations.len(), one.expect, one.rule.as_deref()),
        (2, Expect::Action(Action::Deny), Some("db"))
    );
    assert_eq!(two.operations[0].1.to_string(), "run rm x");
    assert_eq!((two.expect, two.when_ns), (Expect::WouldDeny, Some(1_798_070_400_000_000_000)));
}

#[test]
fn the_order_of_files_means_nothing() {
    let rules =
        source("version: 1\nrules: [{name: r, agents: [a], during: w, deny: {connect: [\"resource:x\"]}}]\n");
    let rest = source(
        "version: 1\nagents: {a: {owner: o}}\nresources: {x: {connect: [\"*:1\"]}}\nwindows: {w: {from: 2026-12-01T00:00:00Z, to: 2026-12-02T00:00:00Z}}\n",
    );
    for sources in [vec![rules.clone(), rest.clone()], vec![rest, rules]] {
        let (policy, warnings) = policy_of(sources, Context { users: &users(), now_ns: NOW }).unwrap();
        assert_eq!((policy.rules.len(), warnings), (1, Vec::new()));
    }
}

#[test]
fn unknown_names_are_refused_at_their_place() {
    let text = r#"version: 1
resources: {db: {conect: [], connect: ["*:1"]}, nothing: {}}
agents: {a: {owner: o, default: {conect: deny, read: denny}, guards: {ptrase: off, mount: maybe}}}
windows: {w: {from: 2026-12-20, to: 2026-12-21T00:00:00Z}, v: {from: 2026-12-20T00:00:00Z, to: 2026-12-19T00:00:00Z}, u: {from: 2026-12-20T00:00:00Z}}
rules:
  - {name: r, agents: [b], during: x, deny: {connect: ["resource:bd"], raed: ["/x"], run: ["resource:db"]}}
  - {deny: {read: []}, then: freezing}
  - {name: s}
  - {name: t, allow: {exec: [/x]}, deny: {exec: [/y]}, timeout: x, deny: {}}
  - {name: s, log: {}}
tests:
  - {agent: aa, connect: x, expect: denyed, rule: R}
  - {read: relative, expect: deny}
  - {agent: a, expect: deny}
"#;
    let all = problems(text);
    let expected = [
        (Code::UnknownKey, 2, 18),
        (Code::MissingKey, 2, 49),
        (Code::UnknownKey, 3, 34),
        (Code::UnknownWord, 3, 54),
        (Code::UnknownGuard, 3, 71),
        (Code::UnknownWord, 3, 91),
        (Code::BadTime, 4, 21),
        (Code::BadTime, 4, 96),
        (Code::MissingKey, 4, 119),
        (Code::UnknownAgent, 6, 24),
        (Code::UnknownWindow, 6, 36),
        (Code::UnknownResource, 6, 56),
        (Code::UnknownKey, 6, 72),
        (Code::BadPattern, 6, 92),
        (Code::MissingKey, 7, 5),
        (Code::EmptyList, 7, 19),
        (Code::NotEnforcedYet, 7, 24),
        (Code::UnknownWord, 7, 30),
        (Code::OneVerdict, 8, 12),
        (Code::OneVerdict, 9, 36),
        (Code::NoEffect, 9, 56),
        (Code::BadValue, 9, 65),
        (Code::DuplicateKey, 9, 68),
        (Code::EmptyList, 10, 20),
        (Code::UndeclaredAgent, 12, 13),
        (Code::BadValue, 12, 26),
        (Code::UnknownWord, 12, 37),
        (Code::UnknownRule, 12, 51),
        (Code::MissingKey, 13, 5),
        (Code::BadValue, 13, 12),
        (Code::MissingKey, 14, 5),
    ];
    assert_eq!(all, expected);
}

#[test]
fn breakers_are_checked() {
    let breaker = |when: &str| {
        let text =
            format!("version: 1\nagents: {{a: {{owner: o, breakers: [{{when: {when}, then: kill}}]}}}}\n");
        let found = read(&text).unwrap_err().0;
        found.into_iter().find(|one| one.code != Code::NotEnforcedYet).unwrap().code
    };
    for (when, code) in [
        ("{denied: 0, within: 60s}", Code::BadValue),
        ("{denied: 5, within: 60}", Code::BadValue),
        ("{denied: 5}", Code::MissingKey),
        ("{denied: 5, delete: 5, within: 1s}", Code::WrongType),
        ("{within: 1s}", Code::WrongType),
        ("{denyed: 5, delete: 5, within: 1s}", Code::UnknownKey),
        ("{touches: db}", Code::BadPattern),
        ("{touches: \"resource:db\"}", Code::UnknownResource),
    ] {
        assert_eq!(breaker(when), code, "{when}");
    }
}

#[test]
fn suggestions_name_what_was_meant() {
    let help = |text: &str| read(text).unwrap_err().0[0].help.clone().unwrap();
    let with = |rest: &str| {
        format!(
            "version: 1\nagents: {{coding: {{owner: o}}}}\nresources: {{payments-db: {{connect: [\"*:1\"]}}}}\n{rest}"
        )
    };
    for (rest, expected) in [
        ("rules: [{name: r, deny: {connect: [\"resource:payment-db\"]}}]", "did you mean `payments-db`?"),
        ("rules: [{name: r, agents: [codnig], deny: {connect: [\"*:1\"]}}]", "did you mean `coding`?"),
        ("rules: [{name: r, dney: {connect: [\"*:1\"]}}]", "add one of allow, log, ask, deny, kill"),
        ("rules: [{name: r, deny: {conect: [\"*:1\"]}}]", "did you mean `connect`?"),
        ("ruels: []", "did you mean `rules`?"),
        (
            "windows: {w: {from: 2026-12-20, to: 2026-12-21T00:00:00Z}}",
            "write `2026-12-20T00:00:00Z`, if midnight in UTC is meant",
        ),
        ("rules: [{name: r, deny: {exec: [dropdb]}}]", "did you mean `**/dropdb`?"),
        ("rules: [{name: r, deny: {exec: /bin/x}}]", "write `exec: [\"/bin/x\"]`"),
    ] {
        assert_eq!(help(&with(rest)), expected, "{rest}");
    }
}

#[test]
fn bounds() {
    let rules: String = (0..=RULES_MAX).map(|n| format!("- {{name: r{n}}}\n")).collect();
    let found = read(&format!("version: 1\nrules:\n{rules}")).unwrap_err().0;
    assert_eq!(found.len(), PROBLEMS_MAX + 1);
    assert!(found.last().unwrap().message.contains("more problems"), "{:?}", found.last());
    let windows: String = (0..=WINDOWS_MAX)
        .map(|n| format!("  w{n}: {{from: 2026-12-20T00:00:00Z, to: 2026-12-21T00:00:00Z}}\n"))
        .collect();
    let found = problems(&format!("version: 1\nwindows:\n{windows}"));
    assert_eq!(found, [(Code::TooMany, WINDOWS_MAX + 3, 3)]);
}

#[test]
fn ten_thousand_patterns_are_read_and_checked_in_time() {
    let began = std::time::Instant::now();
    let rules: String = (0..10_000_u32)
        .map(|n| {
            format!(
                "- {{name: r{n}, deny: {{read: [/srv/{n}/*], connect: [\"10.{}.{}.0/24:1\"]}}}}\n",
                n / 256,
                n % 256
            )
        })
        .collect();
    let (policy, warnings) = read(&format!("version: 1\nrules:\n{rules}")).unwrap();
    assert_eq!((policy.rules.len(), warnings), (10_000, Vec::new()));
    // Some ten times what it takes where nothing else runs, with debug assertions.
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
}
