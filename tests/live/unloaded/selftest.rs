//! The self-test: what is in force is proved to be enforced, and what is not is not claimed.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use agentwatch::control::policy::{PolicyView, Standing};
use agentwatch::event::Kind;
use anyhow::{Context as _, Result, ensure};
use tests::compare::json_lines;
use tests::daemon::{Daemon, Place, Shared};
use tests::session::{contents, wait};

use crate::restarts::all_events;

/// Where the kernel's side is pinned.
const PINS: &str = "/sys/fs/bpf/agentwatch";

fn output(place: &Place, words: &[&str]) -> Result<Output> {
    place.agentwatch(words).output().context("cannot start agentwatch")
}

fn show(place: &Place) -> Result<PolicyView> {
    let output = output(place, &["policy", "show", "-o", "json"])?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What `doctor` says, with its exit code.
fn doctor(place: &Place) -> Result<(Option<i32>, Vec<serde_json::Value>)> {
    let output = output(place, &["doctor", "-o", "json"])?;
    let lines = serde_json::from_slice(&output.stdout);
    Ok((output.status.code(), lines.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?))
}

/// The lines of a self-test in what `doctor` says, each with whether it is proved.
fn tested(lines: &[serde_json::Value]) -> Vec<(&str, bool)> {
    let one = |line: &'_ serde_json::Value| line["state"] == "full";
    let named = lines.iter().filter_map(|line| Some((line["name"].as_str()?, one(line))));
    named.filter_map(|(name, proved)| Some((name.strip_prefix("self-test of ")?, proved))).collect()
}

#[test]
fn what_is_in_force_is_proved_and_nothing_else_is_seen_of_it() -> Result<()> {
    let _machine = Shared::none()?;
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

/// Where the links of programs are pinned.
fn links() -> Result<PathBuf> {
    let build = std::fs::read_dir(PINS)?.next().context("nothing is pinned")??;
    Ok(build.path().join("links"))
}

/// Puts the link of another program in the place of this one's, which takes its program off its hook.
fn detach(program: &str) -> Result<()> {
    let links = links()?;
    let other = links.join("other");
    std::fs::hard_link(links.join("net_accept"), &other).context("cannot link")?;
    std::fs::rename(other, links.join(program)).context("cannot replace the pin")
}

#[test]
fn what_gets_through_is_told_and_not_claimed() -> Result<()> {
    let _machine = Shared::none()?;
    let place = Place::new()?;
    Daemon::start(&place)?.kill()?;
    detach("file_open")?;

    // It takes over what the other left, which looks whole.
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut command = place.run();
    command.arg("--strict").stdin(Stdio::null()).stdout(stdout).stderr(stderr.try_clone()?);
    let status = wait(&mut command.spawn()?)?;
    let said = String::from_utf8_lossy(&contents(&stderr)?).into_owned();
    ensure!(status.code() == Some(6), "{status}: {said}");
    for words in ["--strict", "`open for reading` went through", "`open for writing` went through"] {
        ensure!(said.contains(words), "`{words}` is not in: {said}");
    }
    ensure!(!said.contains("`make a file`") && !said.contains("connect:"), "{said}");

    let mut daemon = Daemon::start(&place)?;
    let said = daemon.said();
    ensure!(said.contains("NOT ENFORCED: read, write, guard raw-device"), "{said}");
    let view = show(&place)?;
    let status = |name: &str| view.rules.iter().find(|rule| rule.name == name).map(|rule| rule.status);
    ensure!(status("protected") == Some(Standing::NotEnforced), "{view:?}");
    ensure!(status("programs") == Some(Standing::Partly), "{view:?}");
    ensure!(status("database") == Some(Standing::Partly), "{view:?}");
    let strict = view.agents.iter().find(|agent| agent.name == "strict").context("no agent")?;
    for guard in &strict.guards {
        // Delegates are told by files and sockets.
        let lacks = ["raw-device", "delegate"].contains(&guard.guard.as_str());
        let expected = if lacks { Standing::NotEnforced } else { Standing::Enforced };
        ensure!(guard.status == expected, "{guard:?}");
    }
    let (code, lines) = doctor(&place)?;
    let unproved: Vec<_> = tested(&lines).into_iter().filter(|(_, proved)| !proved).collect();
    ensure!(code == Some(3), "{code:?}: {lines:?}");
    ensure!(unproved == [("read", false), ("write", false), ("guard raw-device", false)], "{unproved:?}");
    daemon.wait_for("the self-test's event", |event| {
        let reason = event.reason.as_deref().unwrap_or_default();
        event.kind == Kind::SelfTest && reason.starts_with("NOT ENFORCED: read, write")
    })?;
    daemon.stop()
}

#[test]
fn a_policy_that_the_kernel_cannot_carry_out_is_not_applied() -> Result<()> {
    let _machine = Shared::none()?;
    let place = Place::new()?;
    let write = |text: &str| std::fs::write(place.policy(), format!("version: 1\nagents:\n  {text}\n"));
    write("strict: {owner: tests@example.com}")?;
    Daemon::start(&place)?.kill()?;
    std::fs::remove_file(links()?.join("guard_pivot_root"))?;
    let mut daemon = Daemon::start(&place)?;
    let before = show(&place)?;
    ensure!(before.self_test.skipped.is_some(), "nobody is judged: {before:?}");

    let other = place.state().join("other.yaml");
    let apply = |text: &str| -> Result<Output> {
        std::fs::write(&other, format!("version: 1\nagents:\n  {text}\n"))?;
        output(&place, &["policy", "apply", &other.to_string_lossy()])
    };
    let refused = apply("strict: {owner: tests@example.com, mode: enforce}")?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(6), "{refused:?}");
    ensure!(said.contains("guard namespace") && said.contains("sb_pivotroot"), "{said}");
    ensure!(show(&place)?.hash == before.hash, "another policy is in force");
    daemon.wait_for("the refusal", |event| event.kind == Kind::PolicyRefused)?;

    // Without what needs it the same policy is in force, and proved.
    let applied = apply("strict: {owner: tests@example.com, mode: enforce, guards: {namespace: off}}")?;
    ensure!(applied.status.success(), "{applied:?}");
    let (code, lines) = doctor(&place)?;
    let unproved: Vec<_> = tested(&lines).into_iter().filter(|(_, proved)| !proved).collect();
    ensure!(code == Some(3) && unproved == [("guard namespace", false)], "{unproved:?}");
    let view = show(&place)?;
    let guards = view.agents.iter().flat_map(|agent| &agent.guards);
    for guard in guards {
        let off = guard.guard == "namespace";
        ensure!(guard.status == if off { Standing::Off } else { Standing::Enforced }, "{guard:?}");
    }
    daemon.stop()
}
