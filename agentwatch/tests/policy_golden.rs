//! What is said of policies: golden files, renewed with `AGENTWATCH_BLESS=1`.
#![expect(clippy::unwrap_used, reason = "a test that finds nothing must fail")]

use std::path::{Path, PathBuf};

use agentwatch::event::time::parse_time;
use agentwatch::policy::{Context, Source, Users, policy_of};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/policy")
}

/// All that is said of a policy, as `policy check` shows it.
fn said(file: &Path) -> String {
    let name = file.file_name().unwrap().to_string_lossy();
    let source = Source { name: name.as_ref().into(), text: std::fs::read_to_string(file).unwrap() };
    let users = Users::parse("ci-bot:x:1001:1001::/:/bin/false\n");
    let now_ns = parse_time("2026-11-21T00:00:00Z").unwrap();
    let (taken, problems) = match policy_of(vec![source], Context { users: &users, now_ns }) {
        Ok((_, warnings)) => ("taken", warnings),
        Err(problems) => ("refused", problems.0),
    };
    let blocks: String = problems.iter().map(|problem| format!("\n{problem}\n")).collect();
    format!("{taken}\n{blocks}")
}

#[test]
fn every_policy_is_answered_as_agreed() {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let found = said(&file);
        let golden = file.with_extension("txt");
        if std::env::var_os("AGENTWATCH_BLESS").is_some() {
            std::fs::write(&golden, &found).unwrap();
        }
        let agreed = std::fs::read_to_string(&golden).unwrap_or_default();
        assert!(
            found == agreed,
            "this differs from {}; where it is meant to, renew it with AGENTWATCH_BLESS=1:\n{found}",
            golden.display()
        );
    }
}

#[test]
fn the_contracts_policy_decides_as_its_tests_say() {
    let source = |name: &str| Source {
        name: name.into(),
        text: std::fs::read_to_string(folder().join(name)).unwrap(),
    };
    let users = Users::parse("ci-bot:x:1001:1001::/:/bin/false\n");
    let now_ns = parse_time("2026-11-21T00:00:00Z").unwrap();
    let sources = vec![source("contract.yaml"), source("cases/contract.yaml")];
    let (policy, _) = policy_of(sources, Context { users: &users, now_ns }).unwrap();
    let outcomes = policy.test(now_ns);
    let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.diagnostic(&policy)).collect();
    assert_eq!(failed, []);
    // Every rule is at work in one of them.
    let at_work = |name: &str| {
        outcomes.iter().filter_map(|outcome| outcome.decision.by.rule()).any(|rule| rule.name == name)
    };
    for rule in &policy.rules {
        assert!(at_work(&rule.name), "{}", rule.name);
    }
}
