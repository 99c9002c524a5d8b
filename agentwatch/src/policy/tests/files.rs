//! The files, the agents, and what is refused.

use super::*;

const GOOD: &str = r#"version: 1
agents:
  coding:
    owner: developer-platform@example.com
    match:
      - exec: ["**/claude", "**/codex"]
      - run: ["node *claude*", "python* -m aider*"]
      - unit: ["ci-agent@*.service"]
      - cgroup: ["/kubepods*/agents-*"]
      - user: [ci-bot, 1002]
    mode: observe
  launched:
    owner: me
"#;

#[test]
fn the_contracts_example_is_read() {
    let (policy, warnings) = read(GOOD).unwrap();
    assert_eq!(warnings, []);
    let coding = &policy.agents[0].spec;
    assert_eq!((coding.name.as_str(), coding.mode, coding.origin), ("coding", Mode::Observe, Origin::Policy));
    assert_eq!(coding.owner.as_deref(), Some("developer-platform@example.com"));
    let matches: Vec<_> = coding.matches.iter().map(ToString::to_string).collect();
    assert_eq!(
        matches,
        [
            "exec `**/claude`",
            "exec `**/codex`",
            "run `node *claude*`",
            "run `python* -m aider*`",
            "unit `ci-agent@*.service`",
            "cgroup `/kubepods*/agents-*`",
            "user `ci-bot`",
            "user `1002`",
        ]
    );
    assert!(matches!(coding.matches[6], Match::User { uid: 1001, .. }));
    assert!(policy.agents[1].spec.matches.is_empty());
}

#[test]
fn all_problems_come_at_once_with_their_places() {
    let text = r#"version: 1
agents:
  coding:
    ownr: me
    owner: me
    mach: []
    match:
      - exec: ["claude", "/a/[b"]
        run: ["x"]
      - user: [ci-bto, 4294967295]
      - {unit: a/b}
      - exec: []
    mode: enforce
    mode: observe
    guards: {raw-socket: off}
  "bad name": {owner: me, mode: enfroce}
rules: []
"#;
    assert_eq!(
        problems(text),
        [
            (Code::UnknownKey, 4, 5),
            (Code::UnknownKey, 6, 5),
            (Code::BadPattern, 8, 17),
            (Code::BadPattern, 8, 30),
            (Code::WrongType, 9, 9),
            (Code::UnknownUser, 10, 16),
            (Code::UnknownUser, 10, 24),
            (Code::WrongType, 11, 16),
            (Code::EmptyList, 12, 15),
            (Code::DuplicateKey, 14, 5),
            (Code::BadName, 16, 3),
            (Code::UnknownMode, 16, 33),
        ]
    );
}

#[test]
fn a_problem_shows_the_line_a_caret_and_a_suggestion() {
    let text = "version: 1\nagents:\n  coding:\n    owner: me\n    mach: []\n";
    let problems = read(text).unwrap_err();
    let expected = "error[AW0101]: the agent `coding` has no key `mach`\n \
                    --> policy.yaml:5:5\n  |\n5 |     mach: []\n  |     ^^^^ did you mean `match`?";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn what_is_not_enforced_yet_is_refused_by_the_daemon() {
    let found = |text: &str| -> Vec<(Code, Option<(usize, usize)>)> {
        let (policy, _) = read(&format!("version: 1\n{text}")).unwrap();
        enforceable(&policy).iter().map(|one| (one.code, one.place.map(|at| (at.line, at.column)))).collect()
    };
    let mode = |mode: &str| found(&format!("agents: {{a: {{owner: o, mode: {mode}}}}}"));
    assert_eq!(mode("approve"), [(Code::NotEnforced, Some((2, 30)))]);
    assert_eq!(mode("plan"), []);
    assert_eq!(Code::NotEnforced.severity(), Severity::Error);
    assert_eq!(found("agents: {a: {owner: o, mode: enforce}}"), []);
    let delegates =
        "agents: {a: {owner: o, mode: enforce, guards: {delegate: [/run/broker.sock, \"unix:@b\"]}}}";
    assert_eq!(found(delegates), []);
    for address in ["db.example.com:5432", "unix:@name", "vsock:2:1024"] {
        let rules = format!("rules: [{{name: r, deny: {{connect: [\"{address}\"]}}}}]");
        assert_eq!(found(&format!("agents: {{a: {{owner: o, mode: enforce}}}}\n{rules}")), [], "{address}");
    }
    assert_eq!(
        found("agents: {a: {owner: o, mode: observe}, b: {owner: o}, c: {owner: o, mode: recommend}}"),
        []
    );
}

#[test]
fn versions_documents_tags_and_syntax() {
    assert_eq!(problems(""), [(Code::MissingKey, 1, 1)]);
    assert_eq!(problems("agents: {}"), [(Code::MissingKey, 1, 1)]);
    assert_eq!(problems("version: 2"), [(Code::WrongVersion, 1, 10)]);
    assert_eq!(problems("version: 1\nversion: 1"), [(Code::DuplicateKey, 2, 1)]);
    assert_eq!(problems("- 1"), [(Code::WrongType, 1, 1)]);
    assert_eq!(problems("version: 1\n---\nversion: 1")[0].0, Code::SeveralDocuments);
    assert_eq!(problems("version: !!int 1")[0].0, Code::Tag);
    assert_eq!(problems("version: [1")[0].0, Code::Syntax);
    assert_eq!(problems("version: 1\nagents:\n  a: *b\n")[0].0, Code::Syntax);
}

#[test]
fn aliases_are_read_and_bombs_are_not() {
    let text =
        "version: 1\nagents:\n  a: {owner: o, match: &m [{exec: [\"**/x\"]}]}\n  b: {owner: o, match: *m}\n";
    let (policy, _) = read(text).unwrap();
    assert_eq!(policy.agents[0].spec.matches, policy.agents[1].spec.matches);

    let mut bomb = "version: 1\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let before = format!("*a{}, ", n - 1).repeat(10);
        bomb.push_str(&format!("a{n}: &a{n} [{before}]\n"));
    }
    assert_eq!(problems(&bomb)[0].0, Code::TooManyNodes);
    assert_eq!(problems(&format!("{}{}", "[".repeat(40), "]".repeat(40)))[0].0, Code::TooDeep);
    assert_eq!(problems(&"- ".repeat(10_000))[0].0, Code::TooDeep);
    // The YAML library has a bound of its own for these.
    assert_eq!(problems(&"[".repeat(10_000))[0].0, Code::Syntax);
}

#[test]
fn warnings_do_not_refuse() {
    let text = "version: 1\nagents:\n  a: {match: [{run: [\"/usr/bin/x *\"]}]}\n";
    let (policy, warnings) = read(text).unwrap();
    assert_eq!(policy.agents.len(), 1);
    let codes: Vec<_> = warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(codes, [Code::NoOwner, Code::NeverMatches]);
}

#[test]
fn a_folder_is_one_policy_in_name_order() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("20-b.yaml", "version: 1\nagents: {beta: {owner: o}}\n");
    write("10-a.yml", "version: 1\nagents: {alpha: {owner: o}}\n");
    write("README", "no policy");
    write(".hidden.yaml", "no policy");
    let (policy, warnings) = load(folder.path(), Context { users: &users(), now_ns: NOW }).unwrap();
    let names: Vec<_> = policy.agents.iter().map(|agent| agent.spec.name.as_str()).collect();
    assert_eq!(names, ["alpha", "beta"]);
    assert_eq!(warnings.iter().map(|warning| warning.code).collect::<Vec<_>>(), [Code::FileIgnored]);

    write("30-c.yaml", "version: 1\nagents: {alpha: {owner: o}}\n");
    let problems = load(folder.path(), Context { users: &users(), now_ns: NOW }).unwrap_err();
    assert_eq!(problems.0[0].code, Code::DuplicateName);
    assert!(problems.0[0].message.contains("10-a.yml:2"));

    write("40-d.yaml", &format!("version: 1\n# {}", "x".repeat(1 << 20)));
    std::fs::write(folder.path().join("50-e.yaml"), b"version: 1\n# \xff").unwrap();
    let codes: Vec<_> = load(folder.path(), Context { users: &users(), now_ns: NOW })
        .unwrap_err()
        .0
        .iter()
        .map(|p| p.code)
        .collect();
    assert_eq!(codes, [Code::TooLarge, Code::NotUtf8, Code::FileIgnored]);
    let missing =
        load(&folder.path().join("none.yaml"), Context { users: &users(), now_ns: NOW }).unwrap_err();
    assert_eq!(missing.0[0].code, Code::Unreadable);
}

#[test]
fn control_characters_do_not_reach_a_terminal() {
    let problems = read("version: 1\n\"\\e[31mx\": 1\n").unwrap_err();
    assert!(problems.to_string().chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn what_a_terminal_does_not_show_is_made_visible() {
    let problems = read("version: 1\n\"ru\u{202e}les\": 1\n").unwrap_err().to_string();
    assert!(problems.contains("ru\u{fffd}les") && !problems.contains('\u{202e}'), "{problems}");
}

proptest::proptest! {
    /// Whatever is done to a policy, it is taken or refused, and every problem is at a place in it.
    #[test]
    fn a_mangled_policy_is_answered(
        edits in proptest::collection::vec((0_usize..2_000, 0_usize..40, 0_usize..2_000), 0..6),
    ) {
        let mut text = include_str!("../../../tests/golden/policy/contract.yaml").to_owned();
        for (from, length, to) in edits {
            // The contract's text is ASCII.
            let from = from.min(text.len());
            let cut: String = text.drain(from..(from + length).min(text.len())).collect();
            text.insert_str(to.min(text.len()), &cut);
        }
        let problems = match read(&text) {
            Ok((_, warnings)) => warnings,
            Err(problems) => {
                proptest::prop_assert!(problems.0.iter().any(|one| one.code.severity() == Severity::Error));
                problems.0
            }
        };
        for problem in &problems {
            let place = problem.place.unwrap();
            proptest::prop_assert!(place.line <= text.lines().count().max(1) + 1, "{problem}");
            proptest::prop_assert!(!problem.to_string().is_empty());
        }
    }
}

#[test]
fn every_code_is_explained_and_none_is_twice() {
    let document = include_str!("../../../../docs/policy.md");
    let explained: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| AW")?.split_once(" |"))
        .map(|(number, _)| number)
        .collect();
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str().strip_prefix("AW").unwrap()).collect();
    assert_eq!(explained, codes);
    assert!(codes.is_sorted_by(|one, two| one < two));
    let yaml = document.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let (policy, warnings) = read(yaml).unwrap();
    assert_eq!(warnings, []);
    assert!(!policy.cases.is_empty() && policy.test(NOW).iter().all(|outcome| outcome.passed));
}

#[test]
fn a_host_can_be_held_to_a_milder_mode() {
    let modes = |at_most| {
        let text = "version: 1\nagents: {a: {owner: o, mode: enforce}, b: {owner: o}, c: {owner: o, mode: recommend}}";
        let (mut policy, _) = read(text).unwrap();
        policy.hold_to(at_most);
        policy.agents.iter().map(|agent| agent.spec.mode).collect::<Vec<_>>()
    };
    assert_eq!(modes(None), [Mode::Enforce, Mode::Observe, Mode::Recommend]);
    assert_eq!(modes(Some(Mode::Recommend)), [Mode::Recommend, Mode::Observe, Mode::Recommend]);
    assert_eq!(modes(Some(Mode::Observe)), [Mode::Observe; 3]);
}
