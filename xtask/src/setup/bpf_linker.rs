//! bpf-linker, in the cache's own tools folder.

use anyhow::Result;

use crate::cache::Lock;
use crate::cmd::{self, say};
use crate::paths;

/// The last version that links against rustc's own LLVM.
const VERSION: &str = "0.10.4";

/// Installs bpf-linker unless the tools folder has it in our version.
///
/// # Errors
/// If it cannot be fetched or built.
pub fn ensure() -> Result<()> {
    if is_installed() {
        return Ok(());
    }
    let tools = paths::cache_dir("tools")?;
    let _lock = Lock::take(&tools.join("lock"), "bpf-linker")?;
    if is_installed() {
        return Ok(());
    }
    say(&format!("setup: installing bpf-linker {VERSION} (two minutes or so)"));
    cmd::retry("installing bpf-linker", || {
        let mut install = cmd::command("cargo")?;
        install
            .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--root"])
            .arg(&tools);
        // Ours are not its settings; and it must be built by the toolchain whose LLVM it will use.
        install.env_remove("RUSTFLAGS").env_remove("CARGO_TARGET_DIR").current_dir(paths::workspace());
        cmd::watched(&mut install)
    })
}

fn is_installed() -> bool {
    let Ok(linker) = paths::cache().map(|cache| cache.join("tools/bin/bpf-linker")) else { return false };
    let version =
        linker.to_str().and_then(|program| cmd::read(cmd::command(program).ok()?.arg("--version")).ok());
    version.is_some_and(|text| text.split_whitespace().any(|word| word == VERSION))
}
