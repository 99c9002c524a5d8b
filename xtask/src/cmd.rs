//! Running other programs: as root where needed, with retries where a network is involved, and
//! with sentences when they fail.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::paths;

/// How often something that needs the network is tried.
const ATTEMPTS: u32 = 4;

/// Tells the user what is going on. Standard output stays free for results.
pub fn say(text: &str) {
    // Nothing sensible is left to do if standard error is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A command with our PATH and the C locale, so that its output can be read by a program.
///
/// # Errors
/// If PATH cannot be made.
pub fn command(program: &str) -> Result<Command> {
    let mut command = Command::new(program);
    command.env("PATH", paths::search_path()?).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    Ok(command)
}

/// cargo, for this workspace.
///
/// # Errors
/// If PATH cannot be made.
pub fn cargo() -> Result<Command> {
    let mut cargo = command("cargo")?;
    // `cargo run` tells us about ourselves; the build scripts of others must not believe it is for them.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PKG_"))
    {
        cargo.env_remove(name);
    }
    cargo.current_dir(paths::workspace());
    Ok(cargo)
}

/// The same as [`command`], through `sudo` unless we are root already.
///
/// # Errors
/// If PATH cannot be made.
pub fn root_command(program: &str) -> Result<Command> {
    if rustix::process::geteuid().is_root() {
        return command(program);
    }
    let mut sudo = command("sudo")?;
    // sudo asks for the password on the terminal, not on standard input.
    sudo.arg("env").arg("DEBIAN_FRONTEND=noninteractive").arg(program);
    Ok(sudo)
}

/// Runs a command silently and gives its standard output; its messages appear only if it fails.
///
/// # Errors
/// If it cannot be started or does not end with 0.
pub fn read(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("`{}` failed with {}:\n{}", show(command), output.status, tail(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command silently whose result is not its output.
///
/// # Errors
/// As [`read`].
pub fn quiet(command: &mut Command) -> Result<()> {
    read(command).map(drop)
}

/// Runs a command whose output, all of it on standard error, is the progress the user sees.
///
/// # Errors
/// If it cannot be started or does not end with 0.
pub fn watched(command: &mut Command) -> Result<()> {
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().context("cannot duplicate standard error")?;
    command.stdout(Stdio::from(stderr));
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` failed with {status}; its messages are above", show(command));
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| cannot_start(command))
}

fn cannot_start(command: &Command) -> String {
    format!(
        "cannot start `{}`: is it installed? `cargo xtask setup` installs all that is needed",
        show(command)
    )
}

/// Tries something that needs the network several times, with growing pauses.
///
/// # Errors
/// The last attempt's error.
pub fn retry<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let mut number = 1;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if number < ATTEMPTS => {
                say(&format!("{what}: attempt {number} of {ATTEMPTS} failed, trying again: {error:#}"));
                std::thread::sleep(Duration::from_secs(u64::from(number) * 2));
                number += 1;
            }
            Err(error) => {
                return Err(error.context(format!(
                    "{what} failed {ATTEMPTS} times: check that the network and the package mirror are reachable"
                )));
            }
        }
    }
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quote(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// A word as one would type it to a shell.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn tail(output: &Output) -> String {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    last_lines(&text, 30)
}

/// The last lines of a text.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(count)).map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_needed() {
        assert_eq!(quote("linux-image-6.1.0"), "linux-image-6.1.0");
        assert_eq!(quote("two words"), "'two words'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn the_tail_of_a_text_is_its_last_lines() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "  b\n  c\n");
        assert_eq!(last_lines("a", 2), "  a\n");
    }
}
