//! What live tests need of Python's packages, in the cache.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache;
use crate::cmd;
use crate::paths;
use crate::setup::packages;

/// The list of packages: versions and hashes.
const REQUIREMENTS: &str = "tests/live/otlp/requirements.txt";
/// The Python of the guests.
const PYTHON: &str = "3.11";

/// Gives the folder of OpenTelemetry's SDK, which guests see as `/share/otel`. pip fetches it from where it is told to, which
/// by itself is PyPI, and takes nothing that is not in the list.
///
/// # Errors
/// If pip cannot be had, or does not bring it.
pub fn ensure_otel() -> Result<PathBuf> {
    let place = otel()?;
    cache::once(&place, "OpenTelemetry's SDK", |partial| {
        packages::ensure_pip()?;
        cmd::retry("fetching OpenTelemetry's SDK", || {
            cache::remove(partial)?;
            cmd::watched(install(partial)?.arg("-r").arg(requirements()))
        })
    })
}

/// Where [`ensure_otel`] puts it: another list has another place.
///
/// # Errors
/// If the list cannot be read, or there is no cache.
pub fn otel() -> Result<PathBuf> {
    let list = requirements();
    let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    Ok(paths::cache()?.join("python").join(cache::key(&text)).join("otel"))
}

fn requirements() -> PathBuf {
    paths::workspace().join(REQUIREMENTS)
}

fn install(place: &Path) -> Result<std::process::Command> {
    let mut pip = cmd::command("python3")?;
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]);
    pip.args(["--no-deps", "--require-hashes", "--no-compile", "--root-user-action", "ignore"]);
    // Wheels of Python alone: they run on any guest.
    pip.args(["--only-binary", ":all:", "--implementation", "py", "--abi", "none", "--platform", "any"]);
    pip.args(["--python-version", PYTHON, "--target"]).arg(place);
    Ok(pip)
}
