//! QEMU and the programs that build images, from the distribution.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::apt::{self, Apt};
use crate::cache::Lock;
use crate::cmd::{self, say};
use crate::paths;

/// Programs, and the packages that have them.
const PROGRAMS: [(&str, &str); 8] = [
    ("mmdebstrap", "mmdebstrap"),
    // mmdebstrap needs it where it does not run as root.
    ("newuidmap", "uidmap"),
    ("mksquashfs", "squashfs-tools"),
    ("mke2fs", "e2fsprogs"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("fakeroot", "fakeroot"),
    ("qemu-system-x86_64", "qemu-system-x86"),
];

/// Debian releases whose own QEMU lets guests crash now and then, and whose backports have a better one.
const BACKPORTED_QEMU: [&str; 1] = ["bookworm"];
/// The oldest QEMU whose several-threaded TCG we rely on.
pub const DEPENDABLE_QEMU: u32 = 10;

/// Installs the packages whose programs are missing.
///
/// # Errors
/// If the distribution is not one with apt, or an installation fails.
pub fn ensure() -> Result<()> {
    ensure_none(missing)
}

/// Installs what fetching from Debian's archive takes on a machine that is not Debian itself.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_debian() -> Result<()> {
    ensure_none(missing_for_debian)
}

/// Installs npm, which the real agents of the live tests come by.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_npm() -> Result<()> {
    ensure_none(|| if paths::find_program("npm").is_none() { vec!["npm"] } else { Vec::new() })
}

/// Installs pip, which Python's packages for live tests come by.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_pip() -> Result<()> {
    let has_pip = || {
        let asked =
            cmd::command("python3").and_then(|mut python| cmd::read(python.args(["-m", "pip", "--version"])));
        asked.is_ok()
    };
    ensure_none(|| if has_pip() { Vec::new() } else { vec!["python3-pip"] })
}

/// Installs what is missing.
fn ensure_none(missing: impl Fn() -> Vec<&'static str>) -> Result<()> {
    if missing().is_empty() {
        return Ok(());
    }
    let _lock = Lock::take(&paths::cache_dir("apt")?.join("install.lock"), "packages")?;
    let mut missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    if paths::find_program("apt-get").is_none() {
        let names = missing.join(", ");
        bail!("this machine lacks {names}, and has no apt-get to install them with: install them by hand");
    }
    let release = os_release(&fs::read_to_string("/etc/os-release").unwrap_or_default());
    let of = |key: &str| release.get(key).map(String::as_str);
    say(&format!("setup: installing {} (as root)", missing.join(", ")));
    match of("VERSION_CODENAME").filter(|name| of("ID") == Some("debian") && BACKPORTED_QEMU.contains(name)) {
        Some(codename) => {
            let apt = Apt::host(codename)?;
            let qemu = missing
                .iter()
                .position(|name| *name == "qemu-system-x86")
                .map(|place| missing.swap_remove(place));
            install(Some(&apt), &missing, None)?;
            install(Some(&apt), qemu.as_slice(), Some(&format!("{codename}-backports")))
        }
        None => {
            cmd::retry("fetching package lists", || {
                cmd::watched(cmd::root_command("apt-get")?.args(["-q", "update"]))
            })?;
            install(None, &missing, None)
        }
    }
}

fn missing() -> Vec<&'static str> {
    let mut missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| paths::find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    missing.extend(missing_for_debian());
    missing
}

fn missing_for_debian() -> Vec<&'static str> {
    let mut missing = Vec::new();
    if !Path::new(apt::KEYRING).exists() {
        missing.push("debian-archive-keyring");
    }
    // Only a machine without a Debian mirror of its own needs the one that debootstrap knows.
    if apt::mirror().is_err() {
        missing.push("debootstrap");
    }
    missing
}

fn install(apt: Option<&Apt>, packages: &[&str], suite: Option<&str>) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    cmd::retry(&format!("installing {}", packages.join(", ")), || {
        let mut install = cmd::root_command("apt-get")?;
        install.env("DEBIAN_FRONTEND", "noninteractive");
        if let Some(apt) = apt {
            install = apt.with_options(install);
        }
        install.args(["-q", "-y", "--no-install-recommends", "install"]);
        install.args(suite.iter().flat_map(|suite| ["-t", suite])).args(packages);
        cmd::watched(&mut install)
    })
}

/// The fields of `/etc/os-release`.
fn os_release(text: &str) -> HashMap<String, String> {
    let fields = text.lines().filter_map(|line| line.split_once('='));
    fields.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let fields = os_release("ID=debian\nVERSION_CODENAME=\"bookworm\"\n");
        assert_eq!(fields.get("ID").map(String::as_str), Some("debian"));
        assert_eq!(fields.get("VERSION_CODENAME").map(String::as_str), Some("bookworm"));
    }
}
