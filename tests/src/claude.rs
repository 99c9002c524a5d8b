//! Claude Code, the real agent of the live tests: installed on the host, run in a guest against
//! [`crate::model_server`].
//!
//! It is one native program of 378 MB (made with Bun, linked to glibc), and needs no Node.js where it runs,
//! only bash. Its package for the platform is used directly: the main package's own start script would copy
//! the program once more.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The version that is installed: a live test must not change because somebody published something.
pub const VERSION: &str = "2.1.329";
const PACKAGE: &str = "@anthropic-ai/claude-code";

/// Name of the platform in npm's packages.
#[cfg(target_arch = "x86_64")]
const PLATFORM: &str = "linux-x64";
/// Name of the platform in npm's packages.
#[cfg(target_arch = "aarch64")]
const PLATFORM: &str = "linux-arm64";

/// Installs Claude Code into `dir`, unless that version is there, and gives its program. Needs npm and its
/// registry; says on standard error what it does.
///
/// # Errors
/// If npm is missing or fails, or gives no program for this platform.
pub fn install(dir: &Path) -> Result<PathBuf> {
    let program = program(dir);
    if is_installed(dir) {
        eprintln!("Claude Code {VERSION} is in `{}` already", dir.display());
        return Ok(program);
    }
    eprintln!("installing Claude Code {VERSION} with npm into `{}`: about 100 MB to fetch", dir.display());
    let parent = dir.parent().context("a folder below the root is needed for Claude Code")?;
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make `{}`", parent.display()))?;
    // Whole or not at all: an interrupted installation leaves nothing that looks like one.
    let new = tempfile::Builder::new().prefix("claude-").tempdir_in(parent).context("no temporary folder")?;
    let status = Command::new("npm")
        .args(["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"])
        .arg("--prefix")
        .arg(new.path())
        .arg(format!("{PACKAGE}@{VERSION}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot start npm: `apt-get install npm` brings it")?;
    ensure!(status.success(), "npm ended with {status}: its messages are above");
    ensure!(is_installed(new.path()), "npm gave no Claude Code {VERSION} for {PLATFORM}");
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove `{}`", dir.display()))?;
    }
    std::fs::rename(new.keep(), dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
    Ok(program)
}

/// Where the program is in a folder that [`install`] filled, on the host or shared with a guest.
#[must_use]
pub fn program(dir: &Path) -> PathBuf {
    package(dir).join("claude")
}

fn package(dir: &Path) -> PathBuf {
    dir.join("node_modules").join(format!("{PACKAGE}-{PLATFORM}"))
}

fn is_installed(dir: &Path) -> bool {
    let manifest = std::fs::read(package(dir).join("package.json")).ok();
    let manifest: Option<serde_json::Value> = manifest.and_then(|text| serde_json::from_slice(&text).ok());
    let version = manifest.as_ref().and_then(|manifest| manifest.get("version")?.as_str());
    version == Some(VERSION) && program(dir).is_file()
}

/// What makes Claude Code run offline, without asking, as root, with all that it keeps in `home`, and with the
/// model at `base_url`.
#[must_use]
pub fn environment(home: &Path, base_url: &str) -> Vec<(&'static str, String)> {
    let home = home.to_string_lossy().into_owned();
    let switch = |name| (name, "1".to_owned());
    vec![
        ("SHELL", "/bin/bash".to_owned()),
        ("HOME", home.clone()),
        ("TMPDIR", home),
        ("ANTHROPIC_BASE_URL", base_url.to_owned()),
        // It wants one; the scripted server does not look at it.
        ("ANTHROPIC_API_KEY", "scripted".to_owned()),
        switch("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"),
        switch("DISABLE_AUTOUPDATER"),
        switch("DISABLE_TELEMETRY"),
        switch("DISABLE_ERROR_REPORTING"),
        // Root may skip the permission prompts only in a sandbox.
        switch("IS_SANDBOX"),
    ]
}

/// The words that give it one task, done without a human.
#[must_use]
pub fn words(program: &Path, prompt: &str) -> Vec<std::ffi::OsString> {
    let mut words = vec![program.into()];
    words.extend(["--dangerously-skip-permissions", "-p", prompt].map(Into::into));
    words
}
