//! Policies as they are written, and what is said of them.

use super::*;

mod addresses;
mod decisions;
mod diff;
mod files;
mod lints;
mod parts;
mod past;
mod schema;

/// 2026-11-21.
const NOW: u64 = 1_795_219_200_000_000_000;

fn users() -> Users {
    Users::parse("root:x:0:0::/root:/bin/sh\nci-bot:x:1001:1001::/:/bin/false\nbroken\nci-bot:x:9:9::/:\n")
}

fn source(text: &str) -> Source {
    Source { name: "policy.yaml".into(), text: text.to_owned() }
}

fn read(text: &str) -> Result<(Policy, Vec<Diagnostic>), Problems> {
    policy_of(vec![source(text)], Context { users: &users(), now_ns: NOW })
}

fn places(problems: &[Diagnostic]) -> Vec<(Code, usize, usize)> {
    let place = |problem: &Diagnostic| problem.place.map_or((0, 0), |at| (at.line, at.column));
    problems.iter().map(|problem| (problem.code, place(problem).0, place(problem).1)).collect()
}

/// Code, line and column of every problem of a policy that is refused.
fn problems(text: &str) -> Vec<(Code, usize, usize)> {
    places(&read(text).unwrap_err().0)
}

/// Code, line and column of every warning of a policy that is taken.
fn warnings(text: &str) -> Vec<(Code, usize, usize)> {
    places(&read(text).unwrap().1)
}
