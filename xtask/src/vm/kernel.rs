//! Debian's cloud kernels, resolved by series: point releases come and go.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::cache;
use crate::cmd::{self, say};
use crate::paths;

/// The series that everything is tried on.
pub const SERIES: [&str; 4] = ["6.1", "6.12", "6.18", "7.2"];

const FLAVOUR: &str = "-cloud-amd64";
/// What the guest's PID 1 loads before it can see a disk or talk to the host; some kernels have
/// some of them built in.
const BOOT_MODULES: [&str; 5] = ["virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "squashfs"];

/// A kernel in the cache.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// For instance `6.1.0-40-cloud-amd64`.
    pub release: String,
    folder: PathBuf,
}

impl Kernel {
    /// The newest cached kernel of a series; fetched if there is none, or if `refresh` is set.
    ///
    /// # Errors
    /// If the series is unknown, or cannot be fetched.
    pub fn get(series: &str, refresh: bool) -> Result<Self> {
        if !SERIES.contains(&series) {
            bail!("kernel series `{series}` is not one of {}", SERIES.join(", "));
        }
        let folder = paths::cache_dir("kernels")?.join(series);
        let current = folder.join("current");
        if refresh || !current.exists() {
            let _lock = cache::Lock::take(&folder.join("lock"), &format!("kernel {series}"))?;
            if refresh || !current.exists() {
                fetch(series, &folder)?;
            }
        }
        let release =
            fs::read_to_string(&current).with_context(|| format!("cannot read {}", current.display()))?;
        Ok(Self { folder: folder.join(&release), release })
    }

    /// The kernel's image, to boot from.
    pub fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// A squashfs of the module tree.
    pub fn modules(&self) -> PathBuf {
        self.folder.join("modules.squashfs")
    }

    /// The modules for the initramfs, in the order to load them.
    ///
    /// # Errors
    /// If the cache cannot be read.
    pub fn boot_modules(&self) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("boot-modules");
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        Ok(files)
    }
}

fn fetch(series: &str, folder: &Path) -> Result<()> {
    say(&format!("vm: looking for Debian's newest cloud kernel of series {series}"));
    let apt = Apt::guest()?;
    let (release, packages) = resolve(series, &apt)?;
    cache::once(&folder.join(&release), &format!("kernel {release}"), |partial| {
        build(&apt, &release, &packages, partial)
    })?;
    let current = folder.join("current");
    fs::write(&current, &release).with_context(|| format!("cannot write {}", current.display()))
}

/// The newest release of a series, and the packages (`name=version`) that hold it.
fn resolve(series: &str, apt: &Apt) -> Result<(String, Vec<String>)> {
    let mut names = Vec::new();
    for kind in ["image", "binary", "modules"] {
        names.extend(apt.names(&format!("linux-{kind}-{series}"))?);
    }
    names.retain(|name| name.ends_with(FLAVOUR));
    let versions = if names.is_empty() { Vec::new() } else { apt.versions(&names)? };
    newest(series, &versions).with_context(|| {
        format!("Debian's mirror has no cloud kernel of series {series}: try another mirror")
    })
}

/// Up to 6.x one package `linux-image-*` holds all; later the image is in `linux-binary-*` and the
/// modules are in `linux-modules-*`.
fn newest(series: &str, versions: &[(String, String)]) -> Option<(String, Vec<String>)> {
    let named = |kind: &str, release: &str| {
        let name = format!("linux-{kind}-{release}");
        let (name, version) = versions.iter().find(|(found, _)| *found == name)?;
        Some(format!("{name}={version}"))
    };
    let releases = versions.iter().filter_map(|(name, _)| {
        let release = name.strip_prefix("linux-image-").or_else(|| name.strip_prefix("linux-binary-"))?;
        in_series(release, series).then_some(release)
    });
    let release = releases.max_by_key(|release| numbers(release))?;
    let split: Option<Vec<String>> = ["binary", "modules"].iter().map(|kind| named(kind, release)).collect();
    let packages = split.or_else(|| Some(vec![named("image", release)?]))?;
    Some((release.to_owned(), packages))
}

fn in_series(release: &str, series: &str) -> bool {
    release.strip_prefix(series).is_some_and(|rest| rest.starts_with('.'))
}

/// The numbers in a release, which sort it.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn build(apt: &Apt, release: &str, packages: &[String], place: &Path) -> Result<()> {
    let tree = place.join("tree");
    apt.unpack(packages, &tree)?;
    say(&format!("vm: preparing kernel {release}"));
    let found = ["lib/modules", "usr/lib/modules"].map(|folder| tree.join(folder).join(release));
    let modules = found.iter().find(|folder| folder.is_dir());
    let modules = modules.with_context(|| format!("the packages of {release} hold no modules"))?;
    // Newer packages have the image among the modules.
    let found = [tree.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = found.iter().find(|file| file.is_file());
    let image = image.with_context(|| format!("the packages of {release} hold no kernel image"))?;
    rename(image, &place.join("vmlinuz"))?;
    decompress(modules)?;
    // depmod wants its own layout.
    let stage = place.join("stage");
    let staged = stage.join("lib/modules").join(release);
    paths::make_dir(&stage.join("lib/modules"))?;
    rename(modules, &staged)?;
    cmd::quiet(cmd::command("depmod")?.arg("-b").arg(&stage).arg(release))?;
    copy_boot_modules(&staged, &place.join("boot-modules"))?;
    squash(&staged, &place.join("modules.squashfs"))?;
    cache::remove(&stage)?;
    cache::remove(&tree)
}

/// Decompressing now spares every guest the work.
fn decompress(modules: &Path) -> Result<()> {
    let list = cmd::read(cmd::command("find")?.arg(modules).args(["-name", "*.ko.xz"]))?;
    let files: Vec<&str> = list.lines().collect();
    files.chunks(500).try_for_each(|some| cmd::quiet(cmd::command("xz")?.arg("-d").args(some)))
}

fn copy_boot_modules(modules: &Path, place: &Path) -> Result<()> {
    paths::make_dir(place)?;
    let dep = modules.join("modules.dep");
    let dep = fs::read_to_string(&dep).with_context(|| format!("cannot read {}", dep.display()))?;
    for (number, file) in load_order(&dep, &BOOT_MODULES).iter().enumerate() {
        let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
        let target = place.join(format!("{number:02}-{name}"));
        fs::copy(modules.join(file), &target).with_context(|| format!("cannot copy {file}"))?;
    }
    Ok(())
}

/// Files of modules with what they need before them, from the text of `modules.dep`. A module that
/// is not there is built in.
fn load_order(dep: &str, wanted: &[&str]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        let line = dep.lines().find_map(|line| {
            let (file, needs) = line.split_once(':')?;
            (module_name(file) == *name).then_some((file, needs))
        });
        let Some((file, needs)) = line else { continue };
        // modules.dep lists the nearest need first, so the deepest is last.
        for file in needs.split_whitespace().rev().chain([file]) {
            if !order.iter().any(|known| known == file) {
                order.push(file.to_owned());
            }
        }
    }
    order
}

fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

/// Makes a squashfs. It is not compressed: the host's disk is cheap, the guest's processor is not.
///
/// # Errors
/// If mksquashfs fails.
pub fn squash(folder: &Path, place: &Path) -> Result<()> {
    let mut squash = cmd::command("mksquashfs")?;
    squash.arg(folder).arg(place).args(["-noappend", "-no-progress", "-quiet"]);
    cmd::quiet(squash.args(["-noI", "-noD", "-noF", "-noX", "-no-exports"]))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn have(names: &[&str]) -> Vec<(String, String)> {
        names.iter().map(|name| ((*name).to_owned(), "1-1".to_owned())).collect()
    }

    #[test]
    fn the_newest_of_a_series_is_found_by_numbers() {
        let versions = have(&[
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-40-cloud-amd64",
            "linux-image-6.12.9-cloud-amd64",
        ]);
        let (release, packages) = newest("6.1", &versions).unwrap();
        assert_eq!(release, "6.1.0-40-cloud-amd64");
        assert_eq!(packages, ["linux-image-6.1.0-40-cloud-amd64=1-1"]);
        assert_eq!(newest("7.2", &versions), None);
    }

    #[test]
    fn newer_series_have_image_and_modules_apart() {
        let versions = have(&[
            "linux-image-7.2.9+deb13-cloud-amd64",
            "linux-binary-7.2.9+deb13-cloud-amd64",
            "linux-modules-7.2.9+deb13-cloud-amd64",
        ]);
        let (_, packages) = newest("7.2", &versions).unwrap();
        assert_eq!(
            packages,
            ["linux-binary-7.2.9+deb13-cloud-amd64=1-1", "linux-modules-7.2.9+deb13-cloud-amd64=1-1"]
        );
    }

    #[test]
    fn modules_come_after_what_they_need() {
        let dep =
            "k/virtio_pci.ko: k/virtio_ring.ko k/virtio.ko\nk/virtio.ko:\nk/virtio-rng.ko: k/virtio.ko\n";
        assert_eq!(
            load_order(dep, &["virtio_pci", "virtio_rng", "built_in"]),
            ["k/virtio.ko", "k/virtio_ring.ko", "k/virtio_pci.ko", "k/virtio-rng.ko"]
        );
    }
}
