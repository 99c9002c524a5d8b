//! Sessions inside sessions: what begins inside another is held to the rules of both, however it begins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use agentwatch::event::{Event, Kind, Verdict};
use anyhow::{Context as _, Result, ensure};
use tests::compare::json_lines;
use tests::daemon::Daemon;
use tests::gate::Gate;
use tests::policy::{apply, with_policy};
use tests::session::{SessionRun, wait, work_dir};

/// Folder that the policy here is about.
const FOLDER: &str = "/srv/aw-nested";

/// `outer` is enforced where `mode` says so.
fn policy(mode: &str) -> String {
    format!(
        "version: 1
agents:
  test: {{owner: tests@example.com}}
  outer: {{owner: tests@example.com, mode: {mode}}}
  inner: {{owner: tests@example.com, mode: enforce, match: [{{exec: ['**/aw-nested']}}]}}
  seen: {{owner: tests@example.com, match: [{{exec: ['**/aw-seen']}}]}}
rules:
  - {{name: of outer, agents: [outer], deny: {{read: ['{FOLDER}/outer']}}}}
  - {{name: of inner, agents: [inner], deny: {{read: ['{FOLDER}/inner']}}}}
"
    )
}

/// Runs a test with [`policy`] in force, and the files that it is about.
fn with_files(mode: &str, test: impl FnOnce(&mut Daemon, &Path) -> Result<()>) -> Result<()> {
    fs::create_dir_all(FOLDER)?;
    for name in ["outer", "inner", "free"] {
        fs::write(format!("{FOLDER}/{name}"), name)?;
    }
    let dir = work_dir()?;
    with_policy(&policy(mode), |daemon| test(daemon, dir.path()))
}

/// A program under the name of an agent.
fn program(dir: &Path, of: &str, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::copy(of, &path).with_context(|| format!("cannot copy {of}"))?;
    Ok(path)
}

/// Agents of the living sessions, each with the mode that it is held to.
fn modes(daemon: &Daemon) -> Result<Vec<(String, String)>> {
    let output = daemon.place().agentwatch(["agents", "-o", "json"]).output()?;
    let sessions: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let all = sessions.get("sessions").unwrap_or(&sessions).as_array().context("no sessions")?;
    let text = |one: &serde_json::Value, key| {
        one.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    Ok(all.iter().map(|one| (text(one, "agent"), text(one, "mode"))).collect())
}

/// Agents and rules of what was refused, in all sessions.
fn refused(run: &SessionRun) -> Vec<(String, String)> {
    let told =
        |event: &Event| (event.agent.to_string(), event.rule.as_deref().unwrap_or_default().to_owned());
    run.events.iter().filter(|event| event.verdict == Verdict::Denied).map(told).collect()
}

/// Reads all three files by a command inside a session of an agent: what is refused, and to whom.
fn reads(daemon: &mut Daemon, outer: &str, by: &str) -> Result<Vec<(String, String)>> {
    // Not the last command of the shell: it runs in a process of its own.
    let script = format!("{by} {FOLDER}/free && for f in outer inner; do {by} {FOLDER}/$f; done; true");
    let command = daemon.exec_as(outer, ["sh", "-c", &script]);
    let run = daemon.run_session(command)?;
    let (said, refused) = (String::from_utf8_lossy(&run.stdout).into_owned(), refused(&run));
    ensure!(said.starts_with("free"), "{by}: {} {}", run.stderr, json_lines(&run.events));
    for name in ["outer", "inner"] {
        let is_refused = refused.iter().any(|(_, rule)| rule.ends_with(name));
        ensure!(said.contains(name) != is_refused, "{by}: it read {said}, and {refused:?} were told");
    }
    Ok(refused)
}

fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    wanted.iter().map(|(agent, rule)| ((*agent).to_owned(), (*rule).to_owned())).collect()
}

/// Cases D19, E19.
#[test]
fn what_is_inside_a_session_is_held_to_the_rules_of_both() -> Result<()> {
    with_files("enforce", |daemon, dir| {
        let seen = program(dir, "/bin/cat", "aw-seen")?.display().to_string();
        let inner = program(dir, "/bin/cat", "aw-nested")?.display().to_string();
        // The built-in list knows this one.
        let known = program(dir, "/bin/cat", "codex")?.display().to_string();
        let outer_alone = |agent: &str| pairs(&[(agent, "of outer")]);
        let both = pairs(&[("inner", "of outer"), ("inner", "of inner")]);
        ensure!(reads(daemon, "outer", "cat")? == outer_alone("outer"));
        ensure!(reads(daemon, "outer", &seen)? == outer_alone("seen"), "an agent that is only observed");
        let by_known = reads(daemon, "outer", &known)?;
        ensure!(by_known.len() == 1 && by_known.iter().all(|(agent, _)| agent == "codex"), "{by_known:?}");
        ensure!(reads(daemon, "outer", &inner)? == both, "matched at exec");
        ensure!(reads(daemon, "outer", "agentwatch exec --agent seen -- cat")? == outer_alone("seen"));
        ensure!(reads(daemon, "outer", "agentwatch exec --agent inner -- cat")? == both, "launched");
        // The first process of a session stays in it, whatever it becomes: another one.
        let deep = format!("agentwatch exec --agent seen -- sh -c '{inner} $0; true'");
        let three_deep = reads(daemon, "outer", &deep)?;
        ensure!(three_deep == both, "three deep: {three_deep:?}");
        let alone = pairs(&[("inner", "of inner")]);
        ensure!(reads(daemon, "test", &inner)? == alone, "inside one that is only observed");
        ensure!(reads(daemon, "test", "agentwatch exec --agent inner -- cat")? == alone);
        Ok(())
    })
}

#[test]
fn a_policy_that_comes_later_holds_for_what_is_inside_too() -> Result<()> {
    with_files("observe", |daemon, dir| {
        let shell = program(dir, "/bin/sh", "aw-seen")?;
        let mut gate = Gate::new(dir)?;
        let inside = format!("{}; cat {FOLDER}/outer; true", gate.wait());
        let script = format!("{} -c '{inside}'; true", shell.display());
        let mut command = daemon.exec_as("outer", ["sh", "-c", &script]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        daemon.wait_for("the session inside", |event| {
            event.kind == Kind::SessionStart && &*event.agent == "seen"
        })?;
        ensure!(modes(daemon)? == pairs(&[("outer", "observe"), ("seen", "observe")]));
        apply(daemon, &policy("enforce"))?;
        ensure!(modes(daemon)? == pairs(&[("outer", "enforce"), ("seen", "enforce")]), "what it is held to");
        gate.open()?;
        wait(&mut child)?;
        let events = daemon.wait_for("the end of the outer session", |event| {
            event.kind == Kind::SessionEnd && &*event.agent == "outer"
        })?;
        let denied: Vec<_> = events.iter().filter(|event| event.verdict == Verdict::Denied).collect();
        let by = |event: &&&Event| &*event.agent == "seen" && event.rule.as_deref() == Some("of outer");
        ensure!(denied.len() == 1 && denied.iter().all(|event| by(&event)), "{}", json_lines(&events));
        Ok(())
    })
}
