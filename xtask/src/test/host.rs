//! The checks that need no virtual machine.

use std::io;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::Part;
use super::libtest::{Reader, Shared};
use crate::cmd::{self, say};
use crate::setup;

/// The kernel programs have a target of their own, and are no part of what runs on the host.
const HOST_CRATES: [&str; 3] = ["--workspace", "--exclude", "agentwatch-ebpf"];

/// Format, lints, unit tests. What fails keeps nothing else from being tried.
pub fn checks() -> Vec<Part> {
    let mut parts = vec![Part::check("tools for building", setup::for_build)];
    parts.push(Part::check("format", || {
        cmd::watched(cmd::cargo()?.args(["fmt", "--all", "--check"]))
            .context("the format differs: `cargo fmt` mends it")
    }));
    parts.push(Part::check("lints", || {
        let lint = |what: &[&str]| cmd::watched(cargo("clippy")?.args(what).args(["--", "-D", "warnings"]));
        lint(&[&HOST_CRATES[..], &["--all-targets"]].concat())?;
        // No test of a host's, and so none of all targets, beside which it cannot be named either.
        lint(&["--package", "tests", "--test", "live"])
    }));
    parts.push(Part::check("lints of the kernel programs", || {
        let mut clippy = cargo("clippy")?;
        clippy.args(["--package", "agentwatch-ebpf", "--target", "bpfel-unknown-none", "-Zbuild-std=core"]);
        clippy.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"");
        cmd::watched(clippy.args(["--", "-D", "warnings"]))
    }));
    parts.push(unit_tests());
    parts
}

/// cargo for the host's profile. The kernel programs go into the release build only: making them here too
/// would double the time, and no lint or unit test looks at them.
fn cargo(subcommand: &str) -> Result<std::process::Command> {
    let mut cargo = cmd::cargo()?;
    cargo.arg(subcommand).env("AGENTWATCH_SKIP_EBPF", "1");
    Ok(cargo)
}

fn unit_tests() -> Part {
    let name = "unit tests";
    say(&format!("\n== {name}"));
    let start = Instant::now();
    let seen = Shared::default();
    let result = run_unit_tests(Reader::new(String::new(), seen.clone(), io::stdout()));
    let seen = seen.now();
    let mut failures = seen.failed;
    if let Err(error) = result {
        failures.push(format!("{error:#}"));
    }
    Part { name: name.to_owned(), counts: seen.counts, took: start.elapsed(), failures }
}

fn run_unit_tests(mut reader: Reader<io::Stdout>) -> Result<()> {
    let mut tests = cargo("test")?;
    let mut child = tests
        .args(HOST_CRATES)
        .arg("--no-fail-fast")
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo: is Rust installed?")?;
    let mut output = child.stdout.take().context("cargo has no output")?;
    io::copy(&mut output, &mut reader).context("cannot pass on what the tests say")?;
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("`cargo test` ended with {status}");
    }
    Ok(())
}
