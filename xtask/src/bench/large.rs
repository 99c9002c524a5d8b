//! What bringing a large policy into force takes: instructions of all who take part, and memory of the daemon.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::memory::Memory;
use super::{Found, clock, step};
use crate::daemon::Daemon;

/// Path patterns, networks and command patterns.
pub const NUMBERS: [u32; 3] = [10_000, 10_000, 1_000];
/// Networks that one rule has: so many are judged alike.
const NETWORKS_OF_A_RULE: u32 = 10;
/// Rules in a file: a file has room for some 7,000.
const RULES_OF_A_FILE: usize = 4_000;

/// In place of what the policy came into force.
pub const PLACES: [&str; 2] = ["in place of a small one", "in place of itself"];
const SMALL: &str = "version: 1\nagents:\n  bench: {owner: bench@example.com, mode: enforce}\nrules:\n  - {name: one, deny: {read: [/srv/one]}}\n";

/// What a large policy took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Large {
    /// One of [`PLACES`].
    pub place: String,
    /// Of `agentwatch policy apply`, the daemon and the kernel together.
    pub instructions: u64,
    /// The most that the daemon had resident meanwhile, in KiB.
    pub peak_kib: u64,
}

/// Measures it.
///
/// # Errors
/// If it cannot be measured.
pub fn measure() -> Result<()> {
    step("a large policy: starting agentwatch");
    let daemon = Daemon::start(SMALL)?;
    let folder = TempDir::new().context("no temporary folder")?;
    for (number, text) in files().iter().enumerate() {
        let path = folder.path().join(format!("{number:02}.yaml"));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    for place in PLACES {
        forget_peak(&daemon)?;
        let before = clock::busy_ns()?;
        apply(&daemon, folder.path())?;
        let instructions = clock::busy_ns()?.saturating_sub(before);
        let peak_kib = Memory::now(&daemon, place)?.peak_kib;
        Found::Large(Large { place: place.to_owned(), instructions, peak_kib }).tell()?;
    }
    daemon.stop()
}

fn apply(daemon: &Daemon, folder: &Path) -> Result<()> {
    let mut command = daemon.agentwatch(&["policy", "apply"]);
    let output = command.arg(folder).output().context("cannot start `agentwatch policy apply`")?;
    ensure!(output.status.success(), "the policy was refused: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What the daemon had resident before does not count.
fn forget_peak(daemon: &Daemon) -> Result<()> {
    let path = format!("/proc/{}/clear_refs", daemon.pid());
    fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
}

/// The files of the policy.
fn files() -> Vec<String> {
    let [paths, networks, commands] = NUMBERS;
    let mut rules = Vec::new();
    for rule in 0..paths / 2 {
        let first = if rule == 0 { "**/.env".to_owned() } else { format!("/srv/tenant-{}/*.key", 2 * rule) };
        let patterns = format!("['{first}', '/srv/tenant-{}/*.key']", 2 * rule + 1);
        rules.push(format!("  - {{name: paths {rule}, deny: {{read: {patterns}, write: {patterns}}}}}\n"));
    }
    for rule in 0..networks / NETWORKS_OF_A_RULE {
        let mut list = String::new();
        for network in rule * NETWORKS_OF_A_RULE..(rule + 1) * NETWORKS_OF_A_RULE {
            let _ = write!(list, "'10.{}.{}.0/24:{}', ", network / 256, network % 256, 5_000 + rule);
        }
        rules.push(format!("  - {{name: networks {rule}, deny: {{connect: [{list}]}}}}\n"));
    }
    for rule in 0..commands {
        rules.push(format!("  - {{name: command {rule}, deny: {{run: ['tool-{rule} * --force*']}}}}\n"));
    }
    let agents = "version: 1\nagents:\n  bench: {owner: bench@example.com, mode: enforce}\n".to_owned();
    let of_rules = rules.chunks(RULES_OF_A_FILE).map(|some| format!("version: 1\nrules:\n{}", some.concat()));
    std::iter::once(agents).chain(of_rules).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_the_patterns_that_are_asked_for() {
        let text = files().concat();
        let count = |text: &str, what: &str| u32::try_from(text.matches(what).count()).unwrap();
        let (paths, others) = text.split_once("networks 0").unwrap();
        // Each twice, for reading and for writing.
        assert_eq!(count(paths, "/*.key'") + count(paths, "**/.env"), 2 * NUMBERS[0]);
        assert_eq!([count(others, "/24:"), count(others, "run: ")], [NUMBERS[1], NUMBERS[2]]);
    }
}
