//! Where things are kept.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result};

/// The folder for everything that can be made again: `$AGENTWATCH_CACHE`, or `agentwatch` under
/// the user's cache folder. It exists when this returns.
///
/// # Errors
/// If it cannot be made, or no home folder is known.
pub fn cache() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = set("AGENTWATCH_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|path| path.join("agentwatch")))
        .or_else(|| set("HOME").map(|path| path.join(".cache/agentwatch")))
        .context("no place for the cache is known: set AGENTWATCH_CACHE or HOME to a folder")?;
    make_dir(&path)?;
    path.canonicalize().with_context(|| format!("cannot resolve the cache folder {}", path.display()))
}

/// A folder under the cache. It exists when this returns.
///
/// # Errors
/// If it cannot be made.
pub fn cache_dir(name: &str) -> Result<PathBuf> {
    let path = cache()?.join(name);
    make_dir(&path)?;
    Ok(path)
}

/// The workspace's root folder: that of the `cargo xtask` that was called. Where two clones build into one folder, our own
/// program may be the other's, and what it was built with would have us try the wrong sources.
pub fn workspace() -> &'static Path {
    static WORKSPACE: LazyLock<PathBuf> = LazyLock::new(|| {
        let called = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let is_ours = |folder: &PathBuf| folder.ends_with("xtask") && folder.join("Cargo.toml").is_file();
        let mut folder = called.filter(is_ours).unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        folder.pop();
        folder
    });
    &WORKSPACE
}

/// The folder that cargo builds into.
pub fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty()) {
        Some(path) => env::current_dir().unwrap_or_default().join(path),
        None => workspace().join("target"),
    }
}

/// PATH for every program that we start: our own tools first, and the system's folders, which
/// ordinary users often lack.
///
/// # Errors
/// If the cache folder cannot be made, or PATH holds something that cannot be joined.
pub fn search_path() -> Result<std::ffi::OsString> {
    let mut folders = vec![cache()?.join("tools/bin")];
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    env::join_paths(folders).context("PATH cannot be extended by the tools folder: its name holds a colon")
}

/// The program's file, if it is on [`search_path`].
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = search_path().ok()?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Makes a folder and those above it.
///
/// # Errors
/// If it cannot be made.
pub fn make_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| {
        format!("cannot make the folder {}: check its owner and the space left", path.display())
    })
}
