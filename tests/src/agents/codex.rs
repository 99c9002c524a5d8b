//! Codex CLI: one native program of 294 MB, static.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Package;

pub(super) const PACKAGE: Package = Package {
    name: "@openai/codex",
    version: "0.169.0",
    // A voice, and what runs JavaScript for the model.
    superfluous: &[VOICE],
};

#[cfg(target_arch = "x86_64")]
const TRIPLE: &str = "x86_64-unknown-linux-musl";
#[cfg(target_arch = "aarch64")]
const TRIPLE: &str = "aarch64-unknown-linux-musl";
#[cfg(target_arch = "x86_64")]
const VOICE: &str = "vendor/x86_64-unknown-linux-musl/codex-resources/voice";
#[cfg(target_arch = "aarch64")]
const VOICE: &str = "vendor/aarch64-unknown-linux-musl/codex-resources/voice";

/// A model of which it knows that it patches files by a tool of its own.
const MODEL: &str = "gpt-5.5";

/// Where the program is in a folder that [`super::install`] filled, on the host or shared with a guest.
#[must_use]
pub fn program(dir: &Path) -> PathBuf {
    PACKAGE.of_platform(dir).join("vendor").join(TRIPLE).join("bin/codex")
}

/// What its `config.toml` must say: the model is at `base_url`.
#[must_use]
pub fn config(base_url: &str) -> String {
    format!(
        "model = \"{MODEL}\"\nmodel_provider = \"scripted\"\n[model_providers.scripted]\nname = \"scripted\"\n\
         base_url = \"{base_url}/v1\"\nwire_api = \"responses\"\nrequires_openai_auth = false\n"
    )
}

/// What has it keep all in `home`.
#[must_use]
pub fn environment(home: &Path) -> Vec<(&'static str, String)> {
    let home = home.to_string_lossy().into_owned();
    vec![
        ("SHELL", "/bin/bash".to_owned()),
        ("HOME", home.clone()),
        ("CODEX_HOME", home.clone()),
        ("TMPDIR", home),
    ]
}

/// The words that give it one task, done without a human, who would have to trust the hooks as well.
#[must_use]
pub fn words(program: &Path, prompt: &str) -> Vec<OsString> {
    let free = ["--dangerously-bypass-approvals-and-sandbox", "--dangerously-bypass-hook-trust"];
    let words = ["exec", "--skip-git-repo-check"].into_iter().chain(free).chain([prompt]);
    std::iter::once(program.into()).chain(words.map(Into::into)).collect()
}
