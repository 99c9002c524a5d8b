//! Claude Code.
//!
//! It is one native program of 378 MB (made with Bun, linked to glibc), and needs no Node.js where it runs,
//! only bash. Its package for the platform is used directly: the main package's own start script would copy
//! the program once more.

use std::path::{Path, PathBuf};

use super::Package;

pub(super) const PACKAGE: Package =
    Package { name: "@anthropic-ai/claude-code", version: "2.1.329", superfluous: &[] };

/// Where the program is in a folder that [`super::install`] filled, on the host or shared with a guest.
#[must_use]
pub fn program(dir: &Path) -> PathBuf {
    PACKAGE.of_platform(dir).join("claude")
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
