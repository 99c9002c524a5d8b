//! `agentwatch policy` as a user runs it.
#![expect(clippy::unwrap_used, reason = "a test that finds nothing must fail")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const TESTED: &str = r#"version: 1
resources:
  db: {why: looks idle and is not, owner: oncall@example.com, environment: production, connect: ["10.20.0.0/16:5432"]}
agents:
  coding: {owner: dev@example.com, mode: enforce}
rules:
  - {name: no database, deny: {connect: ["resource:db"]}, message: ask oncall first}
  - {name: far away, log: {connect: ["10.0.0.0/8:*"]}}
tests:
  - {name: as it should, agent: coding, connect: "10.20.1.1:5432", expect: denied}
"#;

fn run(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentwatch"));
    command.arg("policy").args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

/// Exit code and standard output; nothing but that is said.
fn answer(folder: &Path, args: &[&str]) -> (i32, String) {
    let output = run(folder, args);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{args:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// Exit code and standard error; nothing but that is said.
fn refusal(folder: &Path, args: &[&str]) -> (i32, String) {
    let output = run(folder, args);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{args:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn json(folder: &Path, args: &[&str]) -> (i32, Value) {
    let (code, text) = answer(folder, &[args, &["-o", "json"]].concat());
    (code, serde_json::from_str(&text).unwrap())
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn check_says_whether_a_policy_can_be_used() {
    let bad = TESTED.replace("resource:db", "resource:bd");
    let warned = TESTED.replace("owner: dev@example.com, ", "");
    let folder = folder(&[("good.yaml", TESTED), ("bad.yaml", &bad), ("warned.yaml", &warned)]);
    let check = |args: &[&str]| answer(folder.path(), &[&["check"], args].concat());
    let usable = "usable: 1 agent, 1 resource, 0 windows, 2 rules, 1 test; 0 warnings\n";
    assert_eq!(check(&["good.yaml"]), (0, usable.to_owned()));
    assert_eq!(check(&["--strict", "good.yaml"]).0, 0);
    let (code, text) = check(&["bad.yaml"]);
    assert_eq!(code, 4);
    assert!(text.contains("error[AW0114]: there is no resource `bd`\n --> bad.yaml:7:42\n"), "{text}");
    assert!(text.ends_with("did you mean `db`?\n\nrefused: 1 error, 0 warnings\n"), "{text}");
    let (code, text) = check(&["warned.yaml"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.ends_with("; 1 warning\n"), "{text}");
    assert_eq!(check(&["--strict", "warned.yaml"]).0, 3);
    let (code, text) = check(&["missing.yaml"]);
    assert_eq!(code, 4);
    assert!(text.contains("cannot read the policy file"), "{text}");
}

#[test]
fn check_refuses_what_the_kernel_has_no_room_for() {
    use std::fmt::Write as _;
    // So many different networks, each judged differently for so many agents.
    let policy = |networks: u32, agents: u32| {
        let mut text = "version: 1\nagents:\n".to_owned();
        for agent in 0..agents {
            let _ = writeln!(text, "  a{agent}: {{owner: dev@example.com, mode: enforce}}");
        }
        text.push_str("rules:\n");
        for agent in 0..agents {
            let _ = writeln!(
                text,
                "  - {{name: of a{agent}, agents: [a{agent}], deny: {{connect: ['192.0.2.{agent}:*']}}}}"
            );
        }
        for network in 0..networks {
            let (high, low) = (network / 256, network % 256);
            let _ = writeln!(
                text,
                "  - {{name: net {network}, deny: {{connect: ['10.{high}.{low}.0/24:{}']}}}}",
                network + 1
            );
        }
        text
    };
    let folder = folder(&[("many.yaml", &policy(9_900, 1)), ("more.yaml", &policy(9_900, 40))]);
    let (code, text) = answer(folder.path(), &["check", "many.yaml"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = answer(folder.path(), &["check", "more.yaml"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.starts_with("error[AW0124]: ") && text.contains("more.yaml"), "{text}");
    assert!(text.contains("more than the kernel's tables hold"), "{text}");
}

#[test]
fn check_for_programs() {
    let folder = folder(&[("bad.yaml", &TESTED.replace("resource:db", "resource:bd"))]);
    let (code, view) = json(folder.path(), &["check", "bad.yaml"]);
    assert_eq!(code, 4);
    let problem = serde_json::json!({
        "code": "AW0114", "severity": "error", "message": "there is no resource `bd`",
        "help": "did you mean `db`?", "file": "bad.yaml", "line": 7, "column": 42, "width": 13,
    });
    assert_eq!(view, serde_json::json!({"usable": false, "problems": [problem]}));
}

#[test]
fn test_runs_the_policys_own_cases() {
    let failing =
        format!("{TESTED}  - {{name: not so, agent: coding, connect: \"10.20.1.1:80\", expect: deny}}\n");
    let folder = folder(&[
        ("good.yaml", TESTED),
        ("bad.yaml", &failing),
        ("none.yaml", "version: 1\n"),
        ("broken.yaml", "version: 2\n"),
    ]);
    let test = |file: &str| answer(folder.path(), &["test", file]);
    assert_eq!(test("good.yaml"), (0, "1 operation passed\n".to_owned()));
    let (code, text) = test("none.yaml");
    assert!(code == 0 && text.contains("has no tests"), "{text}");
    let (code, text) = test("bad.yaml");
    assert_eq!(code, 3);
    let wanted = "not so:\n\
                  error[AW0122]: `connect 10.20.1.1:80` by `coding`: expected `deny`, but it is `log`: the rule `far away` (bad.yaml:8)\n  \
                  --> bad.yaml:11:44\n   |\n\
                  11 |   - {name: not so, agent: coding, connect: \"10.20.1.1:80\", expect: deny}\n   \
                  |                                            ^^^^^^^^^^^^^^\n\n1 of 2 operations failed\n";
    assert_eq!(text, wanted);
    let (code, view) = json(folder.path(), &["test", "bad.yaml"]);
    assert_eq!(
        (code, view[0]["passed"].as_bool(), view[1]["passed"].as_bool()),
        (3, Some(true), Some(false))
    );
    assert_eq!((view[1]["expected"].as_str(), view[1]["actual"].as_str()), (Some("deny"), Some("log")));
    assert_eq!((view[1]["rule"].as_str(), view[1]["at"]["line"].as_u64()), (Some("far away"), Some(11)));
    let (code, text) = refusal(folder.path(), &["test", "broken.yaml"]);
    assert_eq!(code, 4);
    assert!(text.starts_with("error[AW0105]"), "{text}");
}

#[test]
fn explain_says_which_rule_and_why() {
    let folder = folder(&[("p.yaml", TESTED)]);
    let explain = |args: &[&str]| {
        answer(
            folder.path(),
            &[&["explain", "--policy", "p.yaml", "--agent", "coding", "--op"], args].concat(),
        )
    };
    let (code, text) = explain(&["connect", "10.20.3.4:5432"]);
    let wanted = "connect 10.20.3.4:5432 by coding: denied\n  \
                  because   the rule `no database` says `deny`\n  \
                  rule      no database (p.yaml:7)\n  \
                  message   ask oncall first\n  \
                  resource  db (production)\n  \
                  why       looks idle and is not\n  \
                  owner     oncall@example.com\n  \
                  hooks     socket_connect, socket_sendmsg, file_receive\n  \
                  mode      enforce\n  \
                  also      the rule `far away` (p.yaml:8) says `log`\n";
    assert_eq!((code, text.as_str()), (3, wanted));
    let (code, text) = explain(&["read", "/etc/passwd"]);
    assert_eq!(code, 0);
    assert!(text.starts_with("read /etc/passwd by coding: allowed\n"), "{text}");
    let (code, view) = json(
        folder.path(),
        &["explain", "--policy", "p.yaml", "--agent", "x", "--op", "connect", "10.20.3.4:5432"],
    );
    assert_eq!(
        (code, view["verdict"].as_str(), view["decided"].as_str()),
        (0, Some("allowed"), Some("deny"))
    );
    assert_eq!((view["declared"].as_bool(), view["mode"].as_str()), (Some(false), Some("observe")));
    assert_eq!(
        (view["rule"]["name"].as_str(), view["resource"]["name"].as_str()),
        (Some("no database"), Some("db"))
    );
}

#[test]
fn what_cannot_be_asked_is_a_mistake_in_usage() {
    let folder = folder(&[("p.yaml", TESTED)]);
    for (op, target, words) in [
        ("read", "relative", "no absolute path"),
        ("read", "/a/../b", "without `.`, `..`"),
        ("connect", "10.0.0.1", "has no port"),
        ("look", "/x", "there is no operation"),
    ] {
        let args = ["explain", "--policy", "p.yaml", "--agent", "coding", "--op", op, target];
        let (code, text) = refusal(folder.path(), &args);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn diff_tells_what_changes() {
    let other = TESTED.replace("10.20.0.0/16:5432", "10.21.0.0/16:5432");
    let folder = folder(&[("a.yaml", TESTED), ("b.yaml", &other), ("c.yaml", &format!("# more\n{TESTED}"))]);
    assert_eq!(answer(folder.path(), &["diff", "a.yaml", "c.yaml"]), (0, "both mean the same\n".to_owned()));
    let wanted = "~ resource db\n    - connect: 10.20.0.0/16:5432\n    + connect: 10.21.0.0/16:5432\n\
                  ! connect 10.20.1.1:5432 by coding: deny (rule `no database`) -> log (rule `far away`)\n";
    assert_eq!(answer(folder.path(), &["diff", "a.yaml", "b.yaml"]), (0, wanted.to_owned()));
    let (code, view) = json(folder.path(), &["diff", "a.yaml", "b.yaml"]);
    assert_eq!((code, view["parts"][0]["change"].as_str()), (0, Some("changed")));
    assert_eq!(view["decisions"][0]["after"]["decided"].as_str(), Some("log"));
}

#[test]
fn schema_is_json() {
    let folder = folder(&[]);
    let (code, text) = answer(folder.path(), &["schema"]);
    assert_eq!(code, 0);
    let schema: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(schema["$schema"].as_str(), Some("https://json-schema.org/draft/2020-12/schema"));
}
