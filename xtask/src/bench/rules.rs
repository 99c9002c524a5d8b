//! What rules cost: the same work in sessions that are held to 1, 1,000 and 10,000 of them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use super::cost::{self, Bench, Operation, PATIENCE, Run, Setting};
use super::log::LogReader;
use super::{clock, step};
use crate::daemon::{Daemon, TURN};

/// How many rules.
pub const NUMBERS: [u32; 3] = [1, 1_000, 10_000];
/// Those of the number that is held against the bare operation.
pub const USUAL: u32 = 1_000;

/// What is measured without the daemon's work, which is the same for any number of rules: in a folder of the root's file
/// system, as projects are.
pub const OPEN: Operation =
    Operation { name: "open + close, judged", words: &["bench", "open-close"], few: 500, many: 5_500 };
/// The same where each path leads over two more mounts, in the usual number of rules.
pub const OPEN_MOUNTED: Operation = Operation { name: "the same over two mounts", ..OPEN };
/// A real build: N files of C, compiled and linked.
pub const BUILD: Operation = Operation { name: "make, one file of C", words: &[], few: 4, many: 24 };

/// Measures all numbers of rules.
///
/// # Errors
/// If something cannot be measured.
pub fn measure(quick: bool) -> Result<()> {
    let project = TempDir::new_in("/var/tmp").context("no temporary folder")?;
    let folder = TempDir::new_in("/dev/shm").context("no temporary folder in memory")?;
    let rounds = if quick { 1 } else { 3 };
    let (bench, mounted) =
        (Bench { folder: project.path(), rounds }, Bench { folder: folder.path(), rounds });
    let bare = |bench: Bench<'_>, operation: &Operation| {
        bench.one(operation, Setting::Bare, |operation, n| cost::plain(bench.words(operation, n)))
    };
    bare(bench, &OPEN)?;
    bare(mounted, &OPEN_MOUNTED)?;
    bench.one(&BUILD, Setting::Bare, |_, n| build(folder.path(), n, &mut Command::new("make")))?;
    for number in NUMBERS {
        step(&format!("starting agentwatch with rules: {number}"));
        let daemon = Daemon::start(&policy(number))?;
        let setting = Setting::Rules(number);
        let judged = |bench: Bench<'_>, operation: &Operation| {
            bench.one(operation, setting, |operation, n| unlogged(&daemon, &bench, bench.words(operation, n)))
        };
        judged(bench, &OPEN)?;
        if number == USUAL {
            judged(mounted, &OPEN_MOUNTED)?;
            bench.one(&BUILD, setting, |_, n| {
                let mut command = daemon.agentwatch(&["exec", "--agent", "bench", "--", "make"]);
                build(folder.path(), n, &mut command)
            })?;
        }
        daemon.stop()?;
    }
    Ok(())
}

/// So many rules that are enforced, none of which covers what is done here. The first can cover anything by the end of
/// its path, so that each path is read to its end, however many rules there are.
fn policy(number: u32) -> String {
    let mut text =
        "version: 1\nagents:\n  bench: {owner: bench@example.com, mode: enforce}\nrules:\n".to_owned();
    for rule in 0..number {
        let pattern = if rule == 0 { "**/.env".to_owned() } else { format!("/srv/tenant-{rule}/*.key") };
        let _ =
            writeln!(text, "  - {{name: rule {rule}, deny: {{read: ['{pattern}'], write: ['{pattern}']}}}}");
    }
    text
}

/// Runs the actor in a session while the daemon stands still: what the kernel's side costs.
fn unlogged(daemon: &Daemon, bench: &Bench<'_>, actor: Command) -> Result<Run> {
    let mut log = LogReader::at_end(&daemon.log(), bench.folder)?;
    let work = actor.get_args().nth(1).map(Path::new).context("the actor has no folder")?;
    cost::fresh(work)?;
    // It begins when it is told to.
    let mut command =
        daemon.agentwatch(&["exec", "--agent", "bench", "--", "sh", "-c", "read go; exec \"$@\"", "sh"]);
    command.arg(actor.get_program()).args(actor.get_args()).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().context("cannot start `agentwatch exec`")?;
    wait_for(&mut log, "\"session.start\"")?;
    daemon.signal(Signal::STOP)?;
    let before = clock::busy_ns()?;
    // Closing it is an end of the line as well.
    drop(child.stdin.take());
    let status = child.wait().context("cannot wait for the actor")?;
    let after = clock::busy_ns()?;
    daemon.signal(Signal::CONT)?;
    ensure!(status.success(), "aw-act ended with {status}");
    wait_for(&mut log, "\"session.end\"")?;
    let told = log.read()?;
    let (events, lost) = told.values().fold((0, 0), |sum, told| (sum.0 + told.events, sum.1 + told.lost));
    Ok(Run { instructions: after.saturating_sub(before), events, lost })
}

fn wait_for(log: &mut LogReader, kind: &str) -> Result<()> {
    let start = Instant::now();
    while !log.tail_holds(kind)? {
        ensure!(start.elapsed() < PATIENCE, "the log tells no {kind} within {PATIENCE:?}");
        std::thread::sleep(TURN);
    }
    Ok(())
}

/// Builds a program of `files` files of C with a command that ends in `make`. The daemon's work is counted in.
fn build(folder: &Path, files: u64, make: &mut Command) -> Result<Run> {
    let work = folder.join("work");
    cost::fresh(&work)?;
    for file in 0..files {
        write(&work.join(format!("part{file}.c")), &source(file))?;
    }
    write(&work.join("main.c"), "int main(void) { return 0; }\n")?;
    write(
        &work.join("Makefile"),
        "parts = $(patsubst %.c,%.o,$(wildcard *.c))\nprogram: $(parts)\n\tcc -o $@ $^\n%.o: %.c\n\tcc -O1 -c -o $@ $<\n",
    )?;
    let before = clock::busy_ns()?;
    let output = make.arg("-C").arg(&work).stdin(Stdio::null()).output().context("cannot start make")?;
    let after = clock::busy_ns()?;
    ensure!(output.status.success(), "make failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Run { instructions: after.saturating_sub(before), ..Run::default() })
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A file of C with the usual headers and functions that give the compiler something to do.
fn source(number: u64) -> String {
    let mut text =
        "#include <errno.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n".to_owned();
    for function in 0..40 {
        let _ = writeln!(
            text,
            "int f{number}_{function}(const char *text, int n) {{\n  int sum = {function};\n  for (int i = 0; i < n && text[i]; i++) {{\n    switch (text[i] % 7) {{ case 1: sum += i * text[i]; break; case 3: sum ^= n << (i % 5); break; default: sum -= (int)strlen(text + i); }}\n  }}\n  if (sum < 0) fprintf(stderr, \"%s: %d\\n\", text, sum);\n  return sum;\n}}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_the_rules_that_are_asked_for() {
        assert_eq!(policy(1_000).matches("- {name: rule ").count(), 1_000);
    }
}
