//! The programs that guests get beside agentwatch: static ones of this workspace, in one folder for PATH.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;

use crate::cmd::say;
use crate::{paths, setup, vm};

/// A program of this workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The daemon and its commands.
    Agentwatch,
    /// The scripted actor.
    Act,
    /// The scripted model server.
    Model,
    /// What installs the real agents.
    Agents,
    /// The live tests, with libtest's command line.
    Live,
    /// This program, for what it does in a guest.
    Xtask,
}

impl Program {
    /// Its name on PATH, which is that of its target in cargo too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agentwatch => "agentwatch",
            Self::Act => "aw-act",
            Self::Model => "aw-model",
            Self::Agents => "aw-agents",
            Self::Live => "live",
            Self::Xtask => "xtask",
        }
    }

    const fn package(self) -> &'static str {
        match self {
            Self::Agentwatch => "agentwatch",
            Self::Act | Self::Model | Self::Agents | Self::Live => "tests",
            Self::Xtask => "xtask",
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Live => "--test",
            _ => "--bin",
        }
    }
}

/// A folder with programs; removed with this value.
#[derive(Debug)]
pub struct Programs(TempDir);

impl Programs {
    /// Builds the programs, with one call of cargo.
    ///
    /// # Errors
    /// If what building needs cannot be had, or one does not build.
    pub fn build(wanted: &[Program]) -> Result<Self> {
        setup::for_build()?;
        let names: Vec<&str> = wanted.iter().map(|program| program.name()).collect();
        say(&format!("building {}", names.join(", ")));
        let built = cargo(wanted)?;
        let folder = paths::target_dir().join("guests");
        paths::make_dir(&folder)?;
        let folder =
            TempDir::with_prefix_in("programs-", folder).context("cannot make a folder for programs")?;
        for name in names {
            let program =
                built.get(name).with_context(|| format!("cargo built no `{name}` and did not say why"))?;
            let place = folder.path().join(name);
            fs::hard_link(program, &place)
                .or_else(|_| fs::copy(program, &place).map(drop))
                .with_context(|| format!("cannot copy {} to {}", program.display(), place.display()))?;
        }
        Ok(Self(folder))
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.0.path()
    }
}

/// Builds, and gives the programs' files by name.
fn cargo(wanted: &[Program]) -> Result<HashMap<String, PathBuf>> {
    let mut cargo = vm::static_build()?;
    // A release without its kernel programs would fail at its start, much later.
    cargo.env_remove("AGENTWATCH_SKIP_EBPF").arg("--message-format=json-render-diagnostics");
    for program in wanted {
        cargo.args(["--package", program.package(), program.kind(), program.name()]);
    }
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start cargo: is Rust installed?")?;
    let mut messages = String::new();
    let output = child.stdout.take().context("cargo has no output")?;
    std::io::BufReader::new(output).read_to_string(&mut messages).context("cannot read what cargo says")?;
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("the programs for the guests do not build ({status}); cargo's messages are above");
    }
    Ok(executables(&messages))
}

/// A message of cargo, as far as we care.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

fn executables(messages: &str) -> HashMap<String, PathBuf> {
    let parsed = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    parsed.filter_map(|message| Some((message.target?.name, message.executable?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"libc","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"live","kind":["test"]},"executable":"/t/deps/live-0123"}
{"reason":"build-finished","success":true}
"#;
        let expected = HashMap::from([("live".to_owned(), PathBuf::from("/t/deps/live-0123"))]);
        assert_eq!(executables(messages), expected);
    }
}
