//! Builds the kernel programs and leaves the object where `kernel::object` includes it from.
//!
//! They need another target, `core` from source, and bpf-linker: `cargo xtask setup` brings both.

use std::{env, ffi::OsString, path::PathBuf, process::Command};

/// Between the words of `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\u{1f}";

fn main() -> Result<(), String> {
    println!("cargo:rerun-if-changed=../agentwatch-ebpf");
    println!("cargo:rerun-if-changed=../agentwatch-common");
    println!("cargo:rerun-if-env-changed=AGENTWATCH_SKIP_EBPF");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?);
    let object = out.join("agentwatch-ebpf");
    // For editors and lints on machines without bpf-linker: such a binary says so at its start.
    if env::var_os("AGENTWATCH_SKIP_EBPF").is_some() {
        return std::fs::write(&object, [])
            .map_err(|error| format!("cannot write {}: {error}", object.display()));
    }
    let target_dir = out.join("ebpf");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").map_err(|error| error.to_string())?;
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        // Version 3 of the instruction set, which has atomic operations that give a result: since Linux 5.12.
        "-Ctarget-cpu=v3".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--package", "agentwatch-ebpf", "--bins", "--release"])
        .args(["--target", "bpfel-unknown-none", "-Zbuild-std=core", "--target-dir"])
        .arg(&target_dir)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR))
        .env("PATH", path_with_tools())
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .status()
        .map_err(|error| format!("cannot start cargo for the kernel programs: {error}"))?;
    if !status.success() {
        return Err("the kernel programs do not build: if bpf-linker or core's source is missing, run \
                    `cargo xtask setup`"
            .to_owned());
    }
    let built = target_dir.join("bpfel-unknown-none/release/agentwatch-ebpf");
    std::fs::copy(&built, &object).map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    Ok(())
}

/// `PATH` with the folder in which `cargo xtask setup` keeps bpf-linker.
fn path_with_tools() -> OsString {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = env::var_os("AGENTWATCH_CACHE")
        .map(PathBuf::from)
        .or_else(|| env::var_os("XDG_CACHE_HOME").map(|cache| PathBuf::from(cache).join("agentwatch")))
        .unwrap_or_else(|| home.join(".cache/agentwatch"));
    let mut paths = vec![cache.join("tools/bin")];
    paths.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    env::join_paths(paths).unwrap_or_default()
}
