//! auditd, for comparison: Debian's package as it comes, with one rule for the calls that are measured.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::log::tail_holds;
use crate::cmd;
use crate::daemon::TURN;

const LOG: &str = "/var/log/audit/audit.log";
const CONFIGURATION: &str = "/etc/audit/auditd.conf";
/// How long auditd may take for anything.
const PATIENCE: Duration = Duration::from_secs(300);
/// The calls that are measured, and those that start and end processes.
const CALLS: &str =
    "open,openat,creat,unlink,unlinkat,socket,connect,fork,vfork,clone,clone3,execve,execveat";

/// A running auditd with its rule.
#[derive(Debug)]
pub struct Auditd(Child);

impl Auditd {
    /// Starts it.
    ///
    /// # Errors
    /// If it does not start, or refuses the rule.
    pub fn start() -> Result<Self> {
        // One log that is not rotated while it is looked at.
        let text = fs::read_to_string(CONFIGURATION).context("auditd is not configured: is it installed?")?;
        let lines = text.lines().filter(|line| !line.starts_with("max_log_file"));
        let kept: String = lines.map(|line| format!("{line}\n")).collect();
        let text = format!("{kept}max_log_file = 4000\nmax_log_file_action = ignore\n");
        fs::write(CONFIGURATION, text).context("cannot configure auditd")?;
        let child = Command::new("auditd").arg("-n").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let auditd = Self(child.context("cannot start auditd")?);
        let start = Instant::now();
        while status("pid")? != u64::from(auditd.0.id()) {
            ensure!(start.elapsed() < PATIENCE, "auditd did not start within {PATIENCE:?}");
            std::thread::sleep(TURN);
        }
        // What Debian's own rules file begins with.
        cmd::quiet(cmd::command("auditctl")?.args(["-D"]))?;
        cmd::quiet(cmd::command("auditctl")?.args(["-b", "8192"]))?;
        let rule = ["-a", "always,exit", "-F", "arch=b64", "-S", CALLS, "-k", "bench"];
        cmd::quiet(cmd::command("auditctl")?.args(rule))?;
        Ok(auditd)
    }

    /// Waits until all that happened before is in its log: what happens now comes behind it.
    ///
    /// # Errors
    /// If that does not come to pass.
    pub fn drain(&self, mark: &str) -> Result<()> {
        // By a process of its own: those that began before auditd are not recorded.
        cmd::quiet(cmd::command("aw-act")?.args(["noop", mark]))?;
        let start = Instant::now();
        while !tail_holds(Path::new(LOG), 0, mark)? {
            ensure!(start.elapsed() < PATIENCE, "auditd did not write everything within {PATIENCE:?}");
            std::thread::sleep(TURN);
        }
        Ok(())
    }

    /// Records that it has lost so far.
    ///
    /// # Errors
    /// If it does not tell.
    pub fn lost() -> Result<u64> {
        status("lost")
    }
}

impl Drop for Auditd {
    fn drop(&mut self) {
        // The machine ends soon after.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn status(field: &str) -> Result<u64> {
    let text = cmd::read(cmd::command("auditctl")?.arg("-s"))?;
    parse(&text, field).with_context(|| format!("`auditctl -s` tells no `{field}`: {text}"))
}

fn parse(text: &str, field: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(field)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read() {
        let text = "enabled 1\nfailure 1\npid 271\nlost 3\nbacklog 0\n";
        assert_eq!((parse(text, "pid"), parse(text, "lost"), parse(text, "x")), (Some(271), Some(3), None));
    }
}
