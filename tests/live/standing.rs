//! What the policy in force is worth: proved, and told so.
//!
//! The name makes these the last tests with the programs of the shared daemon: they remove them.

use std::path::Path;
use std::process::Output;

use agentwatch::control::policy::{PolicyView, Standing};
use agentwatch::event::Kind;
use anyhow::{Context as _, Result, ensure};
use tests::compare::json_lines;
use tests::daemon::{Daemon, PINS, Place, Shared};

use crate::restarts::all_events;

pub fn output(place: &Place, words: &[&str]) -> Result<Output> {
    place.agentwatch(words).output().context("cannot start agentwatch")
}

pub fn show(place: &Place) -> Result<PolicyView> {
    let output = output(place, &["policy", "show", "-o", "json"])?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What `doctor` says, with its exit code.
pub fn doctor(place: &Place) -> Result<(Option<i32>, Vec<serde_json::Value>)> {
    let output = output(place, &["doctor", "-o", "json"])?;
    let lines = serde_json::from_slice(&output.stdout);
    Ok((output.status.code(), lines.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?))
}

/// The lines of a self-test in what `doctor` says, each with whether it is proved.
pub fn tested(lines: &[serde_json::Value]) -> Vec<(&str, bool)> {
    let one = |line: &'_ serde_json::Value| line["state"] == "full";
    let named = lines.iter().filter_map(|line| Some((line["name"].as_str()?, one(line))));
    named.filter_map(|(name, proved)| Some((name.strip_prefix("self-test of ")?, proved))).collect()
}

#[test]
fn what_is_in_force_is_proved_and_nothing_else_is_seen_of_it() -> Result<()> {
    let _machine = Shared::apart()?;
    let place = Place::new()?;
    let mut strict = place.run();
    strict.args(["--strict", "--detach-on-exit"]);
    let daemon = Daemon::start_by(&place, strict)?;
    let (code, lines) = doctor(&place)?;
    let tested = tested(&lines);
    // Kernels before 6.2 have one ability less.
    let expected = if lines.iter().all(|line| line["state"] == "full") { 0 } else { 3 };
    ensure!(code == Some(expected) && tested.iter().all(|(_, proved)| *proved), "{code:?}: {lines:?}");
    let skipped =
        lines.iter().find(|line| line["name"] == "programs never skipped").context("no such line")?;
    ensure!(skipped["state"] == "full" && skipped.get("reason").is_none(), "{skipped}");
    for name in ["exec", "run", "read", "write", "delete", "connect", "listen", "guard mount", "guard bpf"] {
        ensure!(tested.iter().any(|(one, _)| *one == name), "`{name}` was not tried: {tested:?}");
    }
    let view = show(&place)?;
    ensure!(
        view.self_test.skipped.is_none() && view.self_test.results.iter().all(|one| one.proved),
        "{view:?}"
    );
    let guards = || view.agents.iter().flat_map(|agent| &agent.guards);
    ensure!(guards().any(|guard| guard.status == Standing::Enforced), "{view:?}");
    ensure!(guards().all(|guard| guard.status != Standing::NotEnforced), "{view:?}");

    // One event says that all was refused, and the canary is no agent.
    let agents = output(&place, &["agents", "--all", "-o", "json"])?;
    ensure!(!String::from_utf8_lossy(&agents.stdout).contains("selftest"), "{agents:?}");
    ensure!(!place.state().join("selftest").exists(), "it left its folder");
    daemon.stop()?;
    let events = all_events(&place)?;
    let told: Vec<_> = events.iter().filter(|event| event.kind == Kind::SelfTest).collect();
    let reason = told.first().and_then(|event| event.reason.as_deref()).unwrap_or_default();
    ensure!(told.len() == 1 && reason.starts_with("each of "), "{}", json_lines(&events));
    let of_host = [Kind::DaemonStart, Kind::PolicyApplied, Kind::SelfTest, Kind::DaemonStop];
    ensure!(events.iter().all(|event| of_host.contains(&event.kind)), "{}", json_lines(&events));

    // Without a daemon `doctor` tries the same, and leaves nothing.
    let (code, lines) = doctor(&place)?;
    let alone = self::tested(&lines);
    ensure!(code == Some(expected) && alone.len() == tested.len(), "{lines:?}");
    ensure!(alone.iter().all(|(_, proved)| *proved), "{lines:?}");
    ensure!(!Path::new(PINS).exists(), "it left kernel objects");
    Ok(())
}
