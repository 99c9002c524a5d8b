//! The guests' root file systems: one ext4 image for each set of packages.
//!
//! A guest writes to a throw-away layer that QEMU puts over the image, so the image never changes
//! and several guests may use it at once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apt::{Apt, GUEST_RELEASE, KEYRING};
use crate::cache;
use crate::cmd::{self, say};
use crate::paths;

/// What every guest has, besides Debian's essential packages.
const PACKAGES: [&str; 34] = [
    "acl",
    "apt",
    "attr",
    "bpftool",
    "bsdextrautils",
    "ca-certificates",
    "curl",
    "e2fsprogs",
    "file",
    "git",
    "iproute2",
    "iputils-ping",
    "jq",
    "kmod",
    "less",
    "libcap2-bin",
    "lsof",
    "mount",
    "ncat",
    "netbase",
    "netcat-openbsd",
    "nftables",
    "openssl",
    "procps",
    "psmisc",
    "python3",
    "socat",
    "strace",
    "sudo",
    "time",
    "util-linux",
    "util-linux-extra",
    "uuid-runtime",
    "xz-utils",
];
/// The image's size. Most of it is a hole in the file.
const IMAGE_BYTES: u64 = 16 << 30;
/// To be raised when images are built in another way, so that old ones are not taken for new.
const RECIPE: u32 = 1;

/// Runs with the new root as `$1` before it becomes an image.
const CUSTOMIZE: &str = r#"set -e
printf '127.0.0.1 localhost agentwatch\n::1 localhost\n' > "$1/etc/hosts"
echo agentwatch > "$1/etc/hostname"
: > "$1/etc/fstab"
rm -f "$1/etc/resolv.conf"
chroot "$1" useradd --create-home --uid 1000 --shell /bin/bash dev
mkdir -p "$1/share" "$1/out"
echo 61676e7477617463686167656e747761 > "$1/etc/machine-id"
"#;

/// Makes the image from a tar of the root: in `fakeroot` if need be, so that owners are kept.
const TO_IMAGE: &str = r#"set -e
mkdir "$1"
tar -C "$1" -xf "$2" --exclude='./dev/*'
mkdir -p "$1/dev" "$1/proc" "$1/sys" "$1/run"
mke2fs -q -t ext4 -L agentwatch -E lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0 -d "$1" "$3""#;

/// The image with these packages added to the usual ones, built if it is not in the cache.
///
/// # Errors
/// If a package does not exist, or the image cannot be built.
pub fn get(packages: &[String], refresh: bool) -> Result<PathBuf> {
    let mut wanted: Vec<String> = PACKAGES.iter().map(|name| (*name).to_owned()).collect();
    wanted.extend_from_slice(packages);
    wanted.sort();
    wanted.dedup();
    let key = cache::key(&(RECIPE, GUEST_RELEASE, CUSTOMIZE, TO_IMAGE, IMAGE_BYTES, &wanted));
    let place = paths::cache_dir("rootfs")?.join(key);
    if refresh {
        cache::remove(&place)?;
    }
    let what = if packages.is_empty() {
        "root image".to_owned()
    } else {
        format!("root image with {}", packages.join(", "))
    };
    let place = cache::once(&place, &what, |partial| build(&what, &wanted, partial))?;
    Ok(place.join("root.ext4"))
}

fn build(what: &str, packages: &[String], place: &Path) -> Result<()> {
    let apt = Apt::guest()?;
    reject_unknown(&apt, packages)?;
    say(&format!("vm: building the {what} (Debian {GUEST_RELEASE}; a minute or so)"));
    paths::make_dir(place)?;
    let sources = guest_sources(&apt, place)?;
    let (tar, tree, image) = (place.join("root.tar"), place.join("tree"), place.join("root.ext4"));
    cmd::retry(&format!("building the {what}"), || {
        let mut bootstrap = cmd::command("mmdebstrap")?;
        bootstrap.args(["--variant=apt", "--format=tar", "--architectures=amd64", "--skip=output/dev"]);
        bootstrap.arg(format!("--keyring={KEYRING}")).arg(format!("--include={}", packages.join(",")));
        bootstrap.args(["--aptopt=Acquire::Languages \"none\"", "--aptopt=Acquire::Retries \"3\""]);
        bootstrap
            .args(["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"]);
        bootstrap.arg("--dpkgopt=path-exclude=/usr/share/doc/*").arg(format!("--customize-hook={CUSTOMIZE}"));
        // By standard input: its own user may not be able to enter the cache.
        let sources = File::open(&sources).with_context(|| format!("cannot open {}", sources.display()))?;
        cmd::watched(bootstrap.arg(GUEST_RELEASE).arg(&tar).arg("-").stdin(sources))
    })?;
    let file = File::create(&image).with_context(|| format!("cannot make {}", image.display()))?;
    file.set_len(IMAGE_BYTES).with_context(|| format!("cannot size {}", image.display()))?;
    let is_root = rustix::process::geteuid().is_root();
    let mut convert = cmd::command(if is_root { "sh" } else { "fakeroot" })?;
    convert.args(if is_root { &[][..] } else { &["--", "sh"] });
    cmd::quiet(convert.args(["-c", TO_IMAGE, "sh"]).arg(&tree).arg(&tar).arg(&image))?;
    [tar, tree, sources].iter().try_for_each(|path| cache::remove(path))
}

/// Only the guests' own release: the backports are for kernels.
fn guest_sources(apt: &Apt, place: &Path) -> Result<PathBuf> {
    let all = fs::read_to_string(apt.sources()).context("cannot read the guests' apt sources")?;
    let own: String =
        all.lines().filter(|line| !line.contains("-backports ")).map(|line| format!("{line}\n")).collect();
    let file = place.join("sources.list");
    fs::write(&file, own).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// A sentence now is better than one of mmdebstrap's after a while.
fn reject_unknown(apt: &Apt, packages: &[String]) -> Result<()> {
    let known = apt.versions(packages)?;
    let unknown: Vec<&str> = packages
        .iter()
        .filter(|name| !known.iter().any(|(found, _)| found == *name))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        bail!(
            "Debian {GUEST_RELEASE} has no package {}: check the spelling after --packages",
            unknown.join(", ")
        );
    }
    Ok(())
}
