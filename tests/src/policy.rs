//! Policies of a test's own, under the shared daemon.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::daemon::{Daemon, Shared};
use crate::session::work_dir;

/// Brings a policy into force, as `agentwatch policy apply` does.
///
/// # Errors
/// If the daemon does not take it.
pub fn apply(daemon: &Daemon, text: &str) -> Result<()> {
    let dir = work_dir()?;
    let path = dir.path().join("policy.yaml");
    fs::write(&path, text).context("cannot write a policy")?;
    let command = daemon.place().agentwatch(["policy", "apply"]).arg(&path).output();
    let output = command.context("cannot start `agentwatch policy apply`")?;
    ensure!(output.status.success(), "not applied: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Runs a test with this policy in force, and brings the shared one back.
///
/// # Errors
/// If one of both does not come into force, and whatever `test` gives.
pub fn with_policy(text: &str, test: impl FnOnce(&mut Daemon) -> Result<()>) -> Result<()> {
    Shared::with(|daemon| {
        apply(daemon, text)?;
        let result = test(daemon);
        let shared = fs::read_to_string(daemon.place().policy()).context("cannot read the policy")?;
        // The test's own failure says more.
        result.and(apply(daemon, &shared))
    })
}
