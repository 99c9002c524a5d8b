//! What is decided, by which rule, and what comes of it.

use super::*;
use crate::event::{Op, Verdict};

const POLICY: &str = r#"version: 1
resources:
  db: {why: looks idle and is not, owner: oncall, connect: ["10.20.0.0/16:5432", /run/db.sock], files: [/srv/db]}
agents:
  e: {owner: o, mode: enforce, default: {connect: deny, write: log}}
  r: {owner: o, mode: recommend}
  p: {owner: o, mode: plan}
  a: {owner: o, mode: approve}
  o: {owner: o}
windows:
  freeze: {from: 2026-12-20T00:00:00Z, to: 2027-01-04T00:00:00Z}
rules:
  - {name: db, deny: {connect: ["resource:db"], read: ["resource:db"], exec: ["resource:db"]}, message: ask oncall}
  - {name: killer, kill: {run: ["rm -rf /*"], connect: ["*:6666"]}}
  - {name: asks, ask: {run: ["rm *"], connect: ["10.20.0.9:*"]}}
  - {name: also, deny: {connect: ["10.20.0.0/16:5432"]}}
  - {name: freeze, during: freeze, deny: {run: ["git push*"]}}
  - {name: only e, agents: [e], deny: {read: ["/etc/shadow"]}, unless: {read: ["/etc/shadow-"]}}
  - {name: names, allow: {connect: ["*.example.com:443"], write: [/srv]}}
  - {name: all but, log: {connect: ["192.0.2.0/24:*"]}, unless: {connect: ["192.0.2.7:*"]}}
  - {name: udp, deny: {connect: ["udp:*:53"]}}
  - {name: ports, deny: {listen: ["0.0.0.0/0:1-1023"]}}
"#;

fn policy() -> Policy {
    read(POLICY).unwrap().0
}

/// Action, verdict, and who decided.
fn decide(policy: &Policy, agent: &str, op: Op, target: &str) -> (Action, Verdict, String) {
    let decision = policy.decide(agent, &Operation::parse(op, target).unwrap(), NOW);
    let by = match decision.by {
        By::Rule { index, rule } => {
            assert_eq!(policy.rules[index].name, rule.name);
            rule.name.clone()
        }
        By::Default => "default".into(),
        By::Plan => "plan".into(),
        By::Protection(protection) => format!("{protection:?}"),
        By::Open => "open".into(),
        By::Nothing => "nothing".into(),
    };
    (decision.action, decision.verdict, by)
}

#[test]
fn the_strictest_rule_decides() {
    let policy = policy();
    for (agent, op, target, action, verdict, by) in [
        ("e", Op::Connect, "10.20.3.4:5432", Action::Deny, Verdict::Denied, "db"),
        ("e", Op::Connect, "[::ffff:10.20.3.4]:5432", Action::Deny, Verdict::Denied, "db"),
        ("e", Op::Connect, "10.20.0.9:5432", Action::Deny, Verdict::Denied, "db"),
        ("e", Op::Connect, "10.20.0.9:80", Action::Ask, Verdict::Denied, "asks"),
        ("e", Op::Connect, "10.20.0.9:6666", Action::Kill, Verdict::Killed, "killer"),
        ("e", Op::Connect, "/run/db.sock", Action::Deny, Verdict::Denied, "db"),
        ("e", Op::Connect, "1.1.1.1:1", Action::Deny, Verdict::Denied, "default"),
        ("e", Op::Connect, "api.example.com:443", Action::Allow, Verdict::Allowed, "names"),
        ("e", Op::Connect, "example.com:443", Action::Deny, Verdict::Denied, "default"),
        ("e", Op::Connect, "192.0.2.1:9", Action::Log, Verdict::Logged, "all but"),
        ("e", Op::Connect, "192.0.2.7:9", Action::Deny, Verdict::Denied, "default"),
        ("o", Op::Connect, "udp:192.0.2.7:53", Action::Deny, Verdict::Allowed, "udp"),
        ("o", Op::Connect, "192.0.2.7:53", Action::Allow, Verdict::Allowed, "nothing"),
        ("e", Op::Listen, "0.0.0.0:80", Action::Deny, Verdict::Denied, "ports"),
        ("e", Op::Listen, "0.0.0.0:8080", Action::Allow, Verdict::Allowed, "nothing"),
        ("e", Op::Run, "rm -rf /x", Action::Kill, Verdict::Killed, "killer"),
        ("e", Op::Run, "/bin/rm x", Action::Ask, Verdict::Denied, "asks"),
        ("e", Op::Run, "git push", Action::Allow, Verdict::Allowed, "nothing"),
        ("e", Op::Read, "/srv/db/x", Action::Deny, Verdict::Denied, "db"),
        ("e", Op::Exec, "/srv/db/x", Action::Deny, Verdict::Denied, "db"),
        ("e", Op::Write, "/srv/db/x", Action::Allow, Verdict::Allowed, "names"),
        ("e", Op::Write, "/etc/x", Action::Log, Verdict::Logged, "default"),
        ("e", Op::Read, "/etc/shadow", Action::Deny, Verdict::Denied, "only e"),
        ("r", Op::Read, "/etc/shadow", Action::Allow, Verdict::Allowed, "nothing"),
        ("stranger", Op::Read, "/etc/shadow", Action::Allow, Verdict::Allowed, "nothing"),
        ("e", Op::Delete, "/srv/db", Action::Allow, Verdict::Allowed, "nothing"),
    ] {
        assert_eq!(
            decide(&policy, agent, op, target),
            (action, verdict, by.to_owned()),
            "{agent} {op:?} {target}"
        );
    }
}

#[test]
fn modes_change_what_comes_of_it_and_not_what_is_decided() {
    let policy = policy();
    for (agent, deny, ask, kill, log) in [
        ("o", Verdict::Allowed, Verdict::Allowed, Verdict::Allowed, Verdict::Allowed),
        ("stranger", Verdict::Allowed, Verdict::Allowed, Verdict::Allowed, Verdict::Allowed),
        ("r", Verdict::WouldDeny, Verdict::WouldDeny, Verdict::WouldDeny, Verdict::Logged),
        ("a", Verdict::Denied, Verdict::Denied, Verdict::Killed, Verdict::Logged),
        ("e", Verdict::Denied, Verdict::Denied, Verdict::Killed, Verdict::Logged),
        ("p", Verdict::Denied, Verdict::Denied, Verdict::Killed, Verdict::Logged),
    ] {
        for (target, action, verdict) in [
            ("10.20.3.4:5432", Action::Deny, deny),
            ("10.20.0.9:1", Action::Ask, ask),
            ("1.1.1.1:6666", Action::Kill, kill),
            ("192.0.2.1:1", Action::Log, log),
        ] {
            let found = decide(&policy, agent, Op::Connect, target);
            assert_eq!((found.0, found.1), (action, verdict), "{agent} {target}");
        }
    }
}

#[test]
fn plan_is_read_only() {
    let policy = policy();
    for (op, target, action, by) in [
        (Op::Write, "/srv/x", Action::Deny, "plan"),
        (Op::Write, "/home/u/x", Action::Deny, "plan"),
        (Op::Write, "/tmp/x", Action::Allow, "nothing"),
        (Op::Write, "/tmp", Action::Allow, "nothing"),
        (Op::Write, "/tmpx", Action::Deny, "plan"),
        (Op::Write, "/var/tmp/a/b", Action::Allow, "nothing"),
        (Op::Write, "/dev/null", Action::Allow, "nothing"),
        (Op::Write, "/dev/null/x", Action::Deny, "plan"),
        (Op::Write, "/dev/pts/3", Action::Allow, "nothing"),
        (Op::Write, "/dev/sda", Action::Deny, "plan"),
        (Op::Delete, "/tmp/x", Action::Deny, "plan"),
        (Op::Connect, "api.example.com:443", Action::Allow, "names"),
        (Op::Connect, "192.0.2.1:1", Action::Log, "all but"),
        (Op::Connect, "1.1.1.1:443", Action::Deny, "plan"),
        (Op::Connect, "/run/x.sock", Action::Deny, "plan"),
        (Op::Connect, "1.1.1.1:6666", Action::Kill, "killer"),
        (Op::Read, "/home/u/x", Action::Allow, "nothing"),
        (Op::Run, "git push", Action::Allow, "nothing"),
        (Op::Listen, "127.0.0.1:8080", Action::Allow, "nothing"),
    ] {
        let found = decide(&policy, "p", op, target);
        assert_eq!((found.0, found.2.as_str()), (action, by), "{op:?} {target}");
    }
}

#[test]
fn plan_writes_to_its_scratch_folders_alone() {
    let text = "version: 1\nagents:\n  p: {owner: o, mode: plan, scratch: [/work/out, '/home/*/scratch']}\n  \
                n: {owner: o, mode: plan, scratch: []}\n  e: {owner: o, mode: enforce, scratch: [/x]}\nrules:\n  \
                - {name: opens nothing, allow: {write: [/srv]}}\n";
    let (policy, warnings) = read(text).unwrap();
    assert_eq!(warnings.iter().map(|one| one.code).collect::<Vec<_>>(), [Code::NoEffect], "{warnings:?}");
    let may = |agent: &str, path: &str| decide(&policy, agent, Op::Write, path).0 < Action::Deny;
    for path in ["/work/out", "/work/out/a/b", "/home/u/scratch/x", "/dev/null"] {
        assert!(may("p", path), "{path}");
    }
    for path in ["/tmp/x", "/work/outer", "/work", "/srv/x"] {
        assert!(!may("p", path) && !may("n", path), "{path}");
    }
    assert!(may("n", "/dev/null") && may("e", "/tmp/x"));
}

#[test]
fn a_window_counts_from_its_beginning_to_before_its_end() {
    let policy = policy();
    let push = Operation::parse(Op::Run, "git push origin").unwrap();
    let window = &policy.windows[0];
    for (when, action) in [
        (window.from_ns - 1, Action::Allow),
        (window.from_ns, Action::Deny),
        (window.to_ns - 1, Action::Deny),
        (window.to_ns, Action::Allow),
    ] {
        assert_eq!(policy.decide("e", &push, when).action, action, "{when}");
    }
}

#[test]
fn reason_message_and_resource() {
    let policy = policy();
    let decide = |agent, op, target| policy.decide(agent, &Operation::parse(op, target).unwrap(), NOW);
    let denied = decide("e", Op::Connect, "10.20.3.4:5432");
    assert_eq!(denied.reason(), "the rule `db` says `deny`");
    assert_eq!(denied.message(), Some("ask oncall"));
    assert_eq!(denied.resource.map(|one| one.name.as_str()), Some("db"));
    // A resource is one whatever rule decides.
    assert_eq!(decide("e", Op::Delete, "/srv/db/x").resource.map(|one| one.name.as_str()), Some("db"));
    assert!(decide("e", Op::Delete, "/srv/dbx").resource.is_none());
    assert_eq!(
        decide("o", Op::Connect, "10.20.3.4:5432").reason(),
        "the rule `db` says `deny`; the mode `observe` enforces nothing"
    );
    assert_eq!(
        decide("e", Op::Run, "rm x").reason(),
        "the rule `asks` says `ask`; this version asks nobody yet, and denies"
    );
    assert_eq!(
        decide("r", Op::Run, "rm x").reason(),
        "the rule `asks` says `ask`; the mode `recommend` only says so"
    );
    assert_eq!(
        decide("e", Op::Connect, "9.9.9.9:9").reason(),
        "no rule matches, and the agent's default decides"
    );
}

#[test]
fn names_of_an_address_decide_with_it() {
    let policy = policy();
    let mut operation = Operation::parse(Op::Connect, "203.0.113.5:443").unwrap();
    assert_eq!(policy.decide("e", &operation, NOW).action, Action::Deny);
    let Target::Address(Address::Ip { names, .. }) = &mut operation.target else { panic!("{operation:?}") };
    names.push("api.example.com".into());
    assert_eq!(policy.decide("e", &operation, NOW).action, Action::Allow);
    names_do_not_help_against_a_rule_on_the_address(&policy);
}

fn names_do_not_help_against_a_rule_on_the_address(policy: &Policy) {
    let mut operation = Operation::parse(Op::Connect, "10.20.1.1:5432").unwrap();
    let Target::Address(Address::Ip { names, .. }) = &mut operation.target else { panic!("{operation:?}") };
    names.push("api.example.com".into());
    assert_eq!(policy.decide("e", &operation, NOW).action, Action::Deny);
}

#[test]
fn the_policys_own_tests_say_what_went_wrong_and_where() {
    let text = format!(
        "{POLICY}tests:\n- {{agent: e, connect: [\"10.20.1.1:5432\", \"1.1.1.1:1\"], expect: denied}}\n- {{agent: e, connect: \"10.20.1.1:5432\", expect: deny, rule: also}}\n- {{agent: r, run: rm x, expect: would-deny}}\n- {{agent: o, run: rm x, expect: would-deny}}\n- {{agent: e, run: git push, expect: deny, at: 2026-12-24T12:00:00Z}}\n- {{agent: e, run: git push, expect: deny}}\n- {{agent: e, connect: \"203.0.113.5:443\", names: api.example.com, expect: allow}}\n"
    );
    let (policy, _) = read(&text).unwrap();
    let outcomes = policy.test(NOW);
    let passed: Vec<bool> = outcomes.iter().map(|outcome| outcome.passed).collect();
    assert_eq!(passed, [true, true, false, true, false, true, false, true]);
    let said: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.diagnostic(&policy)).collect();
    assert_eq!(
        places(&said),
        [(Code::TestFailed, 25, 23), (Code::TestFailed, 27, 19), (Code::TestFailed, 29, 19)]
    );
    assert_eq!(
        said[0].message,
        "`connect 10.20.1.1:5432` by `e`: expected `deny` by the rule `also`, but it is `deny`: the rule `db` (policy.yaml:13)"
    );
    assert_eq!(
        said[2].message,
        "`run git push` by `e`: expected `deny`, but it is `allow`: no rule matches, and the agent has no default"
    );
}

#[test]
fn to_declare_is_open_unless_a_rule_refuses_it() {
    const SOCKET: &str = "/run/agentwatch/declare.sock";
    let mut policy = policy();
    policy.own.open_sockets = vec![literal(std::path::Path::new(SOCKET)).unwrap()];
    let open = (Action::Allow, Verdict::Allowed, "open".to_owned());
    for agent in ["e", "r", "p", "a", "o"] {
        assert_eq!(decide(&policy, agent, Op::Connect, SOCKET), open, "{agent}");
    }
    assert_eq!(decide(&policy, "e", Op::Connect, "/run/agentwatch/other.sock").2, "default");
    assert_eq!(decide(&policy, "p", Op::Connect, "/run/agentwatch/other.sock").2, "plan");
    let (mut refusing, _) =
        read(&format!("{POLICY}  - {{name: no word, deny: {{connect: [/run/agentwatch]}}}}\n")).unwrap();
    refusing.own = policy.own;
    assert_eq!(decide(&refusing, "e", Op::Connect, SOCKET).2, "no word");
}
