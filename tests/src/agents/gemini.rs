//! Gemini CLI: a program in JavaScript, with a Node.js of its own, since Debian's is older than it wants.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Package;

pub(super) const PACKAGE: Package = Package {
    name: "@google/gemini-cli",
    version: "0.61.0",
    // Servers for a browser, and its manual.
    superfluous: &["bundle/bundled", "bundle/docs"],
};
pub(super) const NODE: Package =
    Package { name: "node-PLATFORM", version: "22.23.3", superfluous: &["include", "share"] };

/// What must be there in a folder that [`super::install`] filled: Node.js and the program.
#[must_use]
pub fn programs(dir: &Path) -> [PathBuf; 2] {
    [NODE.folder(dir).join("bin/node"), PACKAGE.folder(dir).join("bundle/gemini.js")]
}

/// What its settings must say beside hooks: how it gets at the model.
pub const SETTINGS: &str = r#"{"security": {"auth": {"selectedType": "gemini-api-key"}}}"#;

/// What makes it run offline, with all that it keeps in `home`, and with the model at `base_url`.
#[must_use]
pub fn environment(home: &Path, base_url: &str) -> Vec<(&'static str, String)> {
    let home = home.to_string_lossy().into_owned();
    vec![
        ("SHELL", "/bin/bash".to_owned()),
        ("HOME", home.clone()),
        ("TMPDIR", home),
        ("GOOGLE_GEMINI_BASE_URL", base_url.to_owned()),
        // It wants one; the scripted server does not look at it.
        ("GEMINI_API_KEY", "scripted".to_owned()),
    ]
}

/// The words that give it one task, done without a human.
#[must_use]
pub fn words(dir: &Path, prompt: &str) -> Vec<OsString> {
    let words = ["--yolo", "--skip-trust", "--model", "gemini-2.5-pro", "--prompt", prompt];
    programs(dir).into_iter().map(OsString::from).chain(words.map(Into::into)).collect()
}
