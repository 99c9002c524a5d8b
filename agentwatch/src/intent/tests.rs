//! Alignment, and what is kept.

use serde_json::{Value, json};

use super::*;
use crate::{
    control::intent::{DeclaredBy, IntentCheckView, IntentState},
    event::{Alignment, Event, IntentRef, Op, Verdict},
    policy::{Context, Policy, Source, Users, policy_of},
};

const S: u64 = 1_000_000_000;
const NOW: u64 = 1_800_000_000 * S;

fn policy() -> Policy {
    let text = "version: 1\nresources:\n  db: {why: w, owner: o@example.com, environment: production, connect: ['10.0.0.0/8:5432'], files: [/srv/db]}\n";
    let source = Source { name: "p".into(), text: text.to_owned() };
    policy_of(vec![source], Context { users: &Users::default(), now_ns: 0 }).unwrap().0
}

pub(super) fn stated(scope: Value) -> Stated {
    serde_json::from_value(scope).unwrap()
}

fn declare(intents: &mut Intents, scope: Value, now_ns: u64, seconds: u64) -> Result<String, String> {
    let declaration = Declaration {
        session: 7,
        by: DeclaredBy::Agent,
        uid: 1000,
        pid: Some(42),
        prompt: None,
        task: None,
        tool: None,
        context: Vec::new(),
        scope: stated(scope),
        plan: Vec::new(),
        expires_ns: now_ns + seconds * S,
        binding: false,
    };
    let declared = intents.declare(declaration, "boot", now_ns, &policy());
    declared.map(|one| one.id.to_string()).map_err(|error| error.to_string())
}

pub(super) fn event(kind: &str, rest: Value) -> Event {
    let mut event =
        json!({"time": "", "seq": 1, "host": "h", "boot_id": "b", "kind": kind, "verdict": "allowed"});
    event.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    serde_json::from_value(event).unwrap()
}

pub(super) fn open(path: &str, flags: &str) -> Event {
    event("file.open", json!({"op": "read", "file": {"path": path, "flags": flags}}))
}

pub(super) fn exec(program: &str, args: &[&str]) -> Event {
    let process = json!({"pid": 1, "start_time": 1, "executable.path": program, "command_args": args});
    event("process.exec", json!({"op": "exec", "process": process}))
}

pub(super) fn connect(address: &str, port: u32) -> Event {
    let network = json!({"transport": "tcp", "type": "ipv4", "peer.address": address, "peer.port": port});
    event("net.connect", json!({"op": "connect", "network": network}))
}

fn alignment(intents: &mut Intents, event: &Event, now_ns: u64) -> Option<Alignment> {
    intents.align(7, event, now_ns).and_then(|intent| intent.alignment)
}

#[test]
fn an_event_is_held_against_what_is_in_force() {
    let mut intents = Intents::default();
    let scope = json!({"write": ["/w"], "run": ["cargo test*"], "connect": ["resource:db"]});
    assert_eq!(alignment(&mut intents, &open("/w/a", "O_WRONLY"), NOW), None, "nothing was declared");
    let id = declare(&mut intents, scope, NOW, 60).unwrap();
    for (event, aligned) in [
        (open("/w/a", "O_WRONLY|O_CREAT"), true),
        (open("/w/a", "O_RDWR"), true),
        (open("/w2/a", "O_WRONLY"), false),
        // Nothing was said of reading.
        (open("/etc/passwd", "O_RDONLY"), true),
        (open("/w/a", "O_WRONLY|O_TRUNC"), false),
        (event("file.delete", json!({"op": "delete", "file": {"path": "/w/a"}})), false),
        (event("file.rename", json!({"op": "delete", "file": {"path": "/w/a", "path_to": "/w/b"}})), false),
        (exec("/usr/bin/cargo", &["cargo", "test", "--all"]), true),
        (exec("/usr/bin/cargo", &["cargo", "publish"]), false),
        (connect("10.1.2.3", 5432), true),
        (connect("10.1.2.3", 5433), false),
        (
            event(
                "net.connect",
                json!({"op": "connect", "network": {"transport": "tcp", "type": "ipv6", "peer.address": "::ffff:10.1.2.3", "peer.port": 5432}}),
            ),
            true,
        ),
    ] {
        let found = intents.align(7, &event, NOW).unwrap();
        let wanted = if aligned { Alignment::Aligned } else { Alignment::Outside };
        assert_eq!((found.alignment, found.id.as_deref()), (Some(wanted), Some(&*id)), "{event:?}");
    }
    assert_eq!(intents.align(7, &event("process.fork", json!({})), NOW), None, "no operation");
    assert_eq!(intents.align(8, &open("/w/a", "O_WRONLY"), NOW), None, "another session");
    let counted = intents.get(&id).unwrap();
    assert_eq!((counted.aligned, counted.outside), (6, 6));
    assert_eq!(counted.scope[&Op::Connect], ["10.0.0.0/8:5432"], "a resource is what it stands for");
    let intent = IntentRef::of(&counted.id.clone(), Alignment::Outside);
    intents.count_more(7, &intent, 3);
    assert_eq!(intents.get(&id).unwrap().outside, 9, "repeats that were told together");
}

#[test]
fn what_is_over_would_have_covered_it() {
    let mut intents = Intents::default();
    let first = declare(&mut intents, json!({"write": ["/w"]}), NOW, 10).unwrap();
    let write = open("/w/a", "O_WRONLY");
    assert_eq!(alignment(&mut intents, &write, NOW - 1), Some(Alignment::Undeclared), "before");
    assert_eq!(alignment(&mut intents, &write, NOW + 9 * S), Some(Alignment::Aligned));
    assert_eq!(alignment(&mut intents, &write, NOW + 10 * S), Some(Alignment::Expired));
    assert_eq!(alignment(&mut intents, &open("/x", "O_WRONLY"), NOW + 10 * S), Some(Alignment::Undeclared));
    let second = declare(&mut intents, json!({"write": ["/v"]}), NOW + 20 * S, 10).unwrap();
    let at = NOW + 21 * S;
    assert_eq!(intents.align(7, &write, at).unwrap().id.as_deref(), Some(&*first));
    assert_eq!(intents.align(7, &open("/x", "O_WRONLY"), at).unwrap().id.as_deref(), Some(&*second));
    intents.close(&second, at).unwrap();
    assert_eq!(alignment(&mut intents, &open("/v/a", "O_WRONLY"), at), Some(Alignment::Expired));
    let state = |intents: &Intents, id: &str| intents.get(id).unwrap().view(&"s".into(), at).state;
    assert_eq!(state(&intents, &first), IntentState::Expired);
    assert_eq!(state(&intents, &second), IntentState::Closed);
    // What is over is not closed again.
    intents.close(&first, at).unwrap();
    assert_eq!(state(&intents, &first), IntentState::Expired);
}

#[test]
fn a_scope_that_cannot_be_used_is_refused_with_a_sentence() {
    let mut intents = Intents::default();
    for (scope, said) in [
        (json!({}), "names nothing"),
        (json!({"write": []}), "names nothing"),
        (json!({"write": ["relative"]}), "relative"),
        (json!({"write": ["/a["]}), "/a["),
        (json!({"write": ["resource:other"]}), "other"),
        (json!({"connect": ["db.example.com:5432"]}), "names the host `db.example.com`"),
        (json!({"connect": ["10.0.0.0/99:1"]}), "10.0.0.0/99"),
        (json!({"write": vec!["/a"; 65]}), "has 65 patterns"),
        (json!({"run": ["\u{0}\n- x: {}'\"}]"]}), ""),
    ] {
        match declare(&mut intents, scope.clone(), NOW, 60) {
            Err(problem) => assert!(problem.contains(said), "{scope}: {problem}"),
            Ok(_) => assert!(said.is_empty(), "{scope}"),
        }
    }
}

#[test]
fn what_is_kept_has_bounds() {
    let mut intents = Intents::default();
    let scope = || json!({"write": ["/w"]});
    for number in 0..IN_FORCE_MAX as u64 {
        declare(&mut intents, scope(), NOW + number, 60).unwrap();
    }
    assert!(declare(&mut intents, scope(), NOW + S, 60).unwrap_err().contains("32 intents in force"));
    // Those that are over make room, and are forgotten in their order.
    for number in 0..1_000 {
        declare(&mut intents, scope(), NOW + (100 + number * 2) * S, 1).unwrap();
    }
    assert_eq!(intents.all().len(), 64);
    let ids: std::collections::BTreeSet<_> = intents.all().iter().map(|one| one.id.clone()).collect();
    assert_eq!(ids.len(), 64);
    let long = "x".repeat(60_000);
    let mut refused = 0;
    for session in 0..400 {
        let declaration = Declaration {
            session: 1_000 + session,
            by: DeclaredBy::Agent,
            uid: 0,
            pid: None,
            prompt: Some(long.clone()),
            task: None,
            tool: None,
            context: Vec::new(),
            scope: stated(scope()),
            plan: Vec::new(),
            expires_ns: NOW + 9_000 * S,
            binding: false,
        };
        refused += u32::from(intents.declare(declaration, "boot", NOW + 3_000 * S, &policy()).is_err());
    }
    assert!((100..200).contains(&refused), "{refused}");
}

#[test]
fn the_latest_checks_are_kept() {
    let mut intents = Intents::default();
    let id = declare(&mut intents, json!({"write": ["/w"]}), NOW, 10).unwrap();
    let check = |number: usize| IntentCheckView {
        passed: number.is_multiple_of(2),
        note: Some(format!("look {number}")),
        checked_by: DeclaredBy::Operator,
        uid: 0,
        time: String::new(),
    };
    for number in 0..20 {
        // Also of what is over.
        assert!(intents.check(&id, check(number)).is_some());
    }
    let kept = &intents.get(&id).unwrap().checks;
    assert_eq!((kept.len(), kept.first(), kept.last()), (16, Some(&check(4)), Some(&check(19))));
    assert!(intents.check("int-none", check(0)).is_none());
    let mut later = Intents::default();
    assert_eq!(later.restore(intents.saved(), &policy()), 0);
    assert_eq!(later.get(&id), intents.get(&id));
}

#[test]
fn what_was_declared_outlives_a_restart() {
    let mut intents = Intents::default();
    let id = declare(&mut intents, json!({"connect": ["resource:db"]}), NOW, 60).unwrap();
    let stored = serde_json::to_string(&intents.saved()).unwrap();
    let mut later = Intents::default();
    // The resource may be gone by then.
    assert_eq!(later.restore(serde_json::from_str(&stored).unwrap(), &Policy::default()), 0);
    assert_eq!(later.get(&id), intents.get(&id));
    assert_eq!(alignment(&mut later, &connect("10.1.2.3", 5432), NOW), Some(Alignment::Aligned));
}

/// What a plan comes to for an agent that is held to rules.
fn judged(mode: &str, plan: &[&str]) -> Result<(Vec<(String, Verdict)>, Stated), String> {
    let text = format!(
        "version: 1\nresources:\n  db: {{why: w, owner: o@example.com, environment: production, connect: ['10.0.0.0/8:5432']}}\n\
         agents:\n  coding: {{owner: dev@example.com, mode: {mode}}}\nrules:\n\
         \x20 - {{name: no database, deny: {{connect: ['resource:db']}}, message: ask oncall first}}\n\
         \x20 - {{name: no force, deny: {{run: ['git push --force*']}}}}\n"
    );
    let source = Source { name: "p".into(), text };
    let policy = policy_of(vec![source], Context { users: &Users::default(), now_ns: 0 }).unwrap().0;
    let plan: Vec<String> = plan.iter().map(|step| (*step).to_owned()).collect();
    let found = judge_plan(&plan, &policy, "coding", NOW).map_err(|error| error.to_string())?;
    Ok((found.0.into_iter().map(|step| (step.step, step.verdict)).collect(), found.1))
}

#[test]
fn a_plan_is_judged_before_anything_runs() {
    let plan = ["write /srv/a*b", "run /usr/bin/git push origin {main}", "connect 192.0.2.1:443"];
    let (steps, scope) = judged("enforce", &plan).unwrap();
    assert!(steps.iter().all(|(_, verdict)| *verdict == Verdict::Allowed) && steps.len() == 3, "{steps:?}");
    assert_eq!(scope[&Op::Write], ["/srv/a\\*b"], "what it says and nothing else");
    assert_eq!(scope[&Op::Run], ["git push origin \\{main\\}"]);
    assert_eq!(scope[&Op::Connect], ["192.0.2.1:443"]);
    let bad = ["write /srv/a", "connect 10.1.2.3:5432", "run git push --force"];
    let problem = judged("enforce", &bad).unwrap_err();
    assert_eq!(
        problem,
        "the policy refuses 2 of the 3 steps of the plan, so nothing was declared\n  \
         step 2: connect 10.1.2.3:5432: `db`: the rule `no database` says `deny` (ask oncall first)\n  \
         step 3: run git push --force: the rule `no force` says `deny`"
    );
    let (steps, _) = judged("recommend", &bad).unwrap();
    assert_eq!(steps[1].1, Verdict::WouldDeny);
    for (step, said) in [
        ("write", "write the operation and its target"),
        ("writes /a", "`writes`"),
        ("write a", "no absolute path"),
        ("connect 10.0.0.1", "10.0.0.1"),
    ] {
        let problem = judged("enforce", &["write /a", step]).unwrap_err();
        assert!(problem.starts_with("step 2 of the plan") && problem.contains(said), "{problem}");
    }
    assert!(judged("enforce", &["write /a"; 65]).unwrap_err().contains("65 steps"));
}

#[test]
fn a_program_is_covered_by_its_path_or_its_command_line() {
    let mut intents = Intents::default();
    let scope = json!({"exec": ["/usr/bin/make"], "run": ["cargo test*"]});
    declare(&mut intents, scope, NOW, 60).unwrap();
    for (event, aligned) in [
        (exec("/usr/bin/make", &["make", "all"]), Alignment::Aligned),
        (exec("/usr/bin/cargo", &["cargo", "test"]), Alignment::Aligned),
        (exec("/usr/bin/cargo", &["cargo", "publish"]), Alignment::Outside),
    ] {
        assert_eq!(alignment(&mut intents, &event, NOW), Some(aligned), "{event:?}");
    }
}
