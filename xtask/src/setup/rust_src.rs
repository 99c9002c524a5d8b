//! The source of `core`, which building for the kernel's own target needs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::cache;
use crate::cmd::{self, say};
use crate::paths;
use crate::setup::packages;

/// What tells that a folder holds the source.
const PROOF: &str = "library/core/src/lib.rs";

/// Puts core's source into the toolchain unless it is there: from `$AGENTWATCH_RUST_SRC`, else by
/// rustup, else from Debian's package of the same version.
///
/// # Errors
/// If none of the three has it.
pub fn ensure() -> Result<()> {
    let place = sysroot()?.join("lib/rustlib/src/rust");
    if place.join(PROOF).is_file() {
        return Ok(());
    }
    let _lock = cache::Lock::take(&paths::cache_dir("rust-src")?.join("lock"), "core's source")?;
    if place.join(PROOF).is_file() {
        return Ok(());
    }
    let version = version()?;
    if let Some(given) = std::env::var_os("AGENTWATCH_RUST_SRC").filter(|value| !value.is_empty()) {
        say(&format!("setup: taking the source of core from {}", Path::new(&given).display()));
        return link(&from_given(Path::new(&given))?, &place);
    }
    say("setup: asking rustup for the source of core");
    match from_rustup() {
        Ok(()) if place.join(PROOF).is_file() => return Ok(()),
        Ok(()) => say("setup: rustup has put it elsewhere; taking Debian's package instead"),
        Err(error) => say(&format!("setup: rustup cannot; taking Debian's package instead ({error:#})")),
    }
    link(&from_debian(&version)?, &place)
}

/// The sysroot of the toolchain that the workspace pins.
fn sysroot() -> Result<PathBuf> {
    let text =
        cmd::read(cmd::command("rustc")?.args(["--print", "sysroot"]).current_dir(paths::workspace()))?;
    Ok(PathBuf::from(text.trim()))
}

fn version() -> Result<String> {
    let text = cmd::read(cmd::command("rustc")?.arg("--version").current_dir(paths::workspace()))?;
    text.split_whitespace()
        .nth(1)
        .map(str::to_owned)
        .with_context(|| format!("rustc tells no version: `{text}`"))
}

fn from_rustup() -> Result<()> {
    let mut rustup = cmd::command("rustup")?;
    // Its failure is a line for the user, not a trace of its calls.
    rustup.args(["component", "add", "rust-src"]).env("RUST_BACKTRACE", "0");
    cmd::quiet(rustup.current_dir(paths::workspace()))
}

/// A folder with the source, or rustup's archive of it.
fn from_given(given: &Path) -> Result<PathBuf> {
    let folder = if given.is_dir() {
        given.to_owned()
    } else {
        let place = paths::cache_dir("rust-src")?.join(cache::key(&given));
        cache::once(&place, "core's source", |partial| {
            paths::make_dir(partial)?;
            cmd::quiet(cmd::command("tar")?.arg("-C").arg(partial).arg("-xf").arg(given))
        })?
    };
    root_of_source(&folder).with_context(|| {
        format!(
            "AGENTWATCH_RUST_SRC is {}, but no {PROOF} is in it: point it to a folder or archive of rust-src",
            given.display()
        )
    })
}

fn from_debian(version: &str) -> Result<PathBuf> {
    let place = paths::cache_dir("rust-src")?.join(version);
    cache::once(&place, "core's source", |partial| {
        packages::ensure_debian()?;
        let apt = Apt::guest()?;
        let versions = apt.versions(&["rust-src".to_owned()])?;
        let wanted = format!("{version}+");
        let Some((name, found)) = versions.iter().find(|(_, found)| found.starts_with(&wanted)) else {
            bail!(
                "Debian's mirror has no rust-src {version}. Set AGENTWATCH_RUST_SRC to a folder or .tar.xz of it, \
                 or run `rustup component add rust-src` where rustup's server can be reached"
            );
        };
        apt.unpack(&[format!("{name}={found}")], partial)
    })?;
    root_of_source(&place).with_context(|| format!("Debian's rust-src {version} holds no {PROOF}"))
}

/// Finds the folder that has [`PROOF`], a few levels down at most.
fn root_of_source(folder: &Path) -> Option<PathBuf> {
    let mut level = vec![folder.to_owned()];
    for _ in 0..6 {
        if let Some(found) = level.iter().find(|folder| folder.join(PROOF).is_file()) {
            return Some(found.clone());
        }
        let below = level.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        level = below.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect();
    }
    None
}

/// Links the toolchain's place to the source, as root if the toolchain is root's.
fn link(source: &Path, place: &Path) -> Result<()> {
    let source = source.canonicalize().with_context(|| format!("cannot resolve {}", source.display()))?;
    say(&format!("setup: linking {} to {}", place.display(), source.display()));
    let parent = place.parent().context("the toolchain's source folder has no parent")?;
    let own = || -> Result<()> {
        paths::make_dir(parent)?;
        cache::remove(place)?;
        Ok(symlink(&source, place)?)
    };
    if own().is_ok() {
        return Ok(());
    }
    cmd::watched(cmd::root_command("mkdir")?.arg("-p").arg(parent))?;
    cmd::watched(cmd::root_command("ln")?.arg("-sfnT").arg(&source).arg(place))
}
