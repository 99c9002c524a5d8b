//! The self-test where something is missing in the kernel: what is not enforced is not claimed.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use agentwatch::control::policy::Standing;
use agentwatch::event::Kind;
use anyhow::{Context as _, Result, ensure};
use tests::daemon::{Daemon, PINS, Place, Shared};
use tests::session::{contents, wait};

use crate::standing::{doctor, output, show, tested};

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
