//! The live tests: one virtual machine for each kernel, one test program in it.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::libtest::{Reader, Seen, Shared};
use super::{Args, Counts, Part};
use crate::cmd::{self, say};
use crate::programs::{Program, Programs};
use crate::setup;
use crate::vm::{self, Sinks, TIMED_OUT, VmSpec};
use crate::{cache, paths};

/// Memory of a guest: a test has 10,000 processes at once.
const MEMORY_MB: u32 = 3072;

/// Runs in the guest: what the kernel said goes to `/out` if a test fails.
const COMMAND: &str = r#"live --test-threads=1 "$@"
code=$?
[ $code = 0 ] || dmesg > /out/dmesg.txt
exit $code"#;

/// Installs the real agents of the live tests into the cache, unless they are there.
///
/// # Errors
/// If npm cannot be had, or does not bring them.
pub fn install_agents(programs: Option<&Programs>) -> Result<()> {
    let programs = programs.context("the program that installs them was not built")?;
    setup::packages::ensure_npm()?;
    let installer = programs.folder().join(Program::Agents.name());
    let installer = installer.to_str().context("the folder that cargo builds into is not UTF-8")?;
    cmd::retry("installing the real agents", || cmd::watched(cmd::command(installer)?.arg(agents()?)))
}

/// What the tests need in a guest beside the usual packages: a server that agents are kept away from, and what runs what
/// they leave behind or ask for.
#[must_use]
pub fn packages() -> Vec<String> {
    ["postgresql", "cron", "at", "tmux", "systemd", "dbus", "docker.io"].map(str::to_owned).to_vec()
}

/// The folder of the real agents: guests see it as `/share/agents`.
fn agents() -> Result<PathBuf> {
    Ok(paths::cache()?.join("agents"))
}

/// Runs the live tests on every kernel, some kernels at a time.
pub fn run(args: &Args, kernels: &[String], programs: &Programs) -> Vec<Part> {
    let waiting = Mutex::new(kernels.iter().collect::<VecDeque<_>>());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                while let Some(kernel) = pop(&waiting) {
                    let part = on_kernel(args, kernel, programs);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(part);
                }
            });
        }
    });
    let mut parts = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let place = |part: &Part| kernels.iter().position(|kernel| part.name.ends_with(&format!(" {kernel}")));
    parts.sort_by_key(place);
    parts
}

fn pop<'a>(waiting: &Mutex<VecDeque<&'a String>>) -> Option<&'a String> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

fn on_kernel(args: &Args, kernel: &str, programs: &Programs) -> Part {
    let name = format!("live tests on {kernel}");
    say(&format!("\n== {name}"));
    let start = Instant::now();
    let seen = Shared::default();
    let out = paths::target_dir().join("live").join(kernel);
    let result = boot(args, kernel, programs, &seen, &out);
    let mut seen = seen.now();
    let mut failures = std::mem::take(&mut seen.failed);
    failures.extend(verdict(&result, &seen));
    if failures.is_empty() {
        // Empty then. Should it stay, the next run removes it.
        let _ = fs::remove_dir(&out);
    } else {
        failures.push(format!("what the guest left is in {}", out.display()));
    }
    let counts = Counts { failed: seen.counts.failed.max(u64::from(!failures.is_empty())), ..seen.counts };
    Part { name, counts, took: start.elapsed(), failures }
}

fn boot(args: &Args, kernel: &str, programs: &Programs, seen: &Shared, out: &Path) -> Result<i32> {
    cache::remove(out)?;
    let mut command: Vec<String> = ["sh", "-c", COMMAND, "sh"].map(str::to_owned).to_vec();
    command.extend(args.live.clone());
    let spec = VmSpec {
        kernel: kernel.to_owned(),
        memory_mb: MEMORY_MB,
        packages: packages(),
        // Without them the tests that need them fail, and the others run.
        shares: [agents()?, setup::python::otel()?].into_iter().filter(|folder| folder.is_dir()).collect(),
        out: Some(out.to_path_buf()),
        command,
        timeout: Duration::from_secs(args.timeout),
        agentwatch: Some(programs.folder().to_owned()),
        ..VmSpec::default()
    };
    let prefix = || format!("[{kernel}] ");
    vm::run_into(&spec, &|| Sinks {
        stdout: Box::new(Reader::new(prefix(), seen.clone(), io::stdout())),
        stderr: Box::new(Reader::new(prefix(), Shared::default(), io::stderr())),
    })
}

/// What is wrong beside the tests that failed.
fn verdict(result: &Result<i32>, seen: &Seen) -> Option<String> {
    let at = || match seen.unfinished.trim() {
        "" => String::new(),
        line => format!(" within `{line}`"),
    };
    match result {
        Err(error) => Some(format!("{error:#}{}", at())),
        Ok(TIMED_OUT) => Some(format!("its time was up{}; --timeout gives it more", at())),
        Ok(code) if seen.ended != 1 => Some(format!("the test program ended with {code}{}", at())),
        Ok(0) if seen.counts.passed == 0 => Some("no test ran: does the filter match one?".to_owned()),
        Ok(code) if (*code != 0) != (seen.counts.failed > 0) => {
            Some(format!("the test program ended with {code}, with {} failed tests", seen.counts.failed))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_does_not_fit_what_was_seen_is_a_failure() {
        let seen = |passed, failed, ended| Seen {
            counts: Counts { passed, failed, skipped: 0 },
            ended,
            unfinished: "test a ... ".to_owned(),
            ..Seen::default()
        };
        assert_eq!(verdict(&Ok(0), &seen(3, 0, 1)), None);
        // The failed tests speak for themselves.
        assert_eq!(verdict(&Ok(101), &seen(3, 1, 1)), None);
        assert!(verdict(&Ok(0), &seen(0, 0, 1)).unwrap().contains("no test ran"));
        assert!(verdict(&Ok(0), &seen(3, 1, 1)).is_some());
        assert!(verdict(&Ok(139), &seen(0, 0, 0)).unwrap().contains("within `test a ...`"));
        assert!(verdict(&Ok(TIMED_OUT), &seen(0, 0, 0)).unwrap().contains("time was up"));
        assert!(verdict(&Err(anyhow::anyhow!("no QEMU")), &seen(0, 0, 0)).unwrap().contains("no QEMU"));
    }
}
