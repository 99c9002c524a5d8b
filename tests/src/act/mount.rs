//! Acts on mounts. With `--private` they happen in a mount namespace of their own, as on a host they must.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use rustix::fs::{CWD, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags,
};

use super::record::{Recorder, did};
use super::spawn::{Way, in_child};
use crate::truth::Did;

/// `CLONE_NEWNS` as the kernel takes it.
const CLONE_NEWNS: u64 = 0x2_0000;
/// Source given to mounts that have none.
const SOURCE: &str = "aw-source";

/// Acts on mounts.
#[derive(Subcommand)]
pub enum Act {
    /// Mounts and unmounts a tmpfs, with a file on it
    MountTmpfs(Where),
    /// Binds a folder to another place and opens a file there
    MountBind(Where),
    /// Mounts by fsopen, fsmount and move_mount
    MountNew(Where),
    /// Reads, writes and creates on an overlay
    Overlay(Where),
    /// Creates a file in a mount namespace with a root of its own (pivot_root), as containers have
    Container,
}

/// Where the mounts happen.
#[derive(Args)]
pub struct Where {
    /// In a mount namespace of its own
    #[arg(long)]
    private: bool,
}

impl Act {
    /// Does it.
    pub fn run(&self, rec: &Recorder) -> Result<()> {
        match self {
            Self::MountTmpfs(at) => at.run(rec, tmpfs),
            Self::MountBind(at) => at.run(rec, bind),
            Self::MountNew(at) => at.run(rec, new_api),
            Self::Overlay(at) => at.run(rec, overlay),
            Self::Container => {
                in_child(rec, Way { flags: CLONE_NEWNS, pid: 0 }, container)?;
                Ok(())
            }
        }
    }
}

impl Where {
    fn run(&self, rec: &Recorder, act: fn(&Recorder) -> Result<()>) -> Result<()> {
        if !self.private {
            return act(rec);
        }
        in_child(rec, Way { flags: CLONE_NEWNS, pid: 0 }, |rec| {
            isolate()?;
            act(rec)
        })?;
        Ok(())
    }
}

/// Keeps what this mount namespace does to itself.
fn isolate() -> Result<()> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).context("cannot make the mounts private")
}

impl Recorder {
    fn mount(&self, source: &str, target: &Path, kind: &str, options: Option<&std::ffi::CStr>) -> Result<()> {
        rustix::mount::mount(source, target, kind, MountFlags::empty(), options)
            .with_context(|| format!("cannot mount {kind} on `{}`", target.display()))?;
        let entry = Did { path: Some(target.into()), argument: Some(source.into()), ..did("mount") };
        self.push(entry);
        Ok(())
    }

    fn unmount(&self, target: &Path) -> Result<()> {
        rustix::mount::unmount(target, UnmountFlags::empty())
            .with_context(|| format!("cannot unmount `{}`", target.display()))?;
        self.push(Did { path: Some(target.into()), ..did("unmount") });
        Ok(())
    }
}

fn tmpfs(rec: &Recorder) -> Result<()> {
    let target = rec.path("target");
    rec.mkdir(&target)?;
    rec.mount(SOURCE, &target, "tmpfs", None)?;
    rec.create(&target.join("file"))?;
    rec.unlink(&target.join("file"))?;
    rec.unmount(&target)
}

fn bind(rec: &Recorder) -> Result<()> {
    let (source, target) = (rec.path("source"), rec.path("target"));
    rec.mkdir(&source)?;
    rec.mkdir(&target)?;
    rec.create(&source.join("file"))?;
    rustix::mount::mount_bind(&source, &target).context("cannot bind")?;
    let entry = Did { path: Some(target.as_path().into()), ..did("mount") };
    rec.push(Did { argument: Some(source.as_path().into()), ..entry });
    rec.open(&target.join("file"), &target.join("file"), OFlags::RDONLY)?;
    rec.unmount(&target)
}

fn new_api(rec: &Recorder) -> Result<()> {
    let target = rec.path("target");
    rec.mkdir(&target)?;
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen failed")?;
    rustix::mount::fsconfig_create(&context).context("fsconfig failed")?;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .context("fsmount failed")?;
    rustix::mount::move_mount(&mount, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context("move_mount failed")?;
    rec.push(Did { path: Some(target.as_path().into()), ..did("mount") });
    // The mount stays busy as long as its descriptor is open.
    drop((context, mount));
    rec.create(&target.join("file"))?;
    rec.unmount(&target)
}

/// Upper and lower folders lie on a tmpfs, so that this works in a folder that is an overlay itself.
fn overlay(rec: &Recorder) -> Result<()> {
    let base = rec.path("base");
    rec.mkdir(&base)?;
    rec.mount(SOURCE, &base, "tmpfs", None)?;
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| base.join(name));
    for folder in [&lower, &upper, &work, &merged] {
        rec.mkdir(folder)?;
    }
    rec.create_with(&lower.join("low"), b"low")?;
    let [l, u, w] = [&lower, &upper, &work].map(|path| path.display());
    let options =
        std::ffi::CString::new(format!("lowerdir={l},upperdir={u},workdir={w}")).context("NUL in a path")?;
    rec.mount("overlay", &merged, "overlay", Some(&options))?;
    rec.open(&merged.join("low"), &merged.join("low"), OFlags::RDONLY)?;
    // Copies it up.
    rec.open(&merged.join("low"), &merged.join("low"), OFlags::RDWR)?;
    rec.create(&merged.join("new"))?;
    rec.unlink(&merged.join("low"))?;
    rec.unmount(&merged)?;
    rec.unmount(&base)
}

fn container(rec: &Recorder) -> Result<()> {
    isolate()?;
    let namespace =
        std::fs::read_link("/proc/self/ns/mnt").context("cannot read this mount namespace's name")?;
    rec.fact("mount_namespace", namespace.to_string_lossy().into_owned());
    let root = rec.path("rootfs");
    rec.mkdir(&root)?;
    rec.mount(SOURCE, &root, "tmpfs", None)?;
    rustix::process::chdir(&root).context("chdir failed")?;
    rustix::process::pivot_root(".", ".").context("pivot_root failed")?;
    rec.push(Did { path: Some(root.as_path().into()), ..did("guard.namespace") });
    // The old root lies over the new one now.
    rustix::mount::unmount(".", UnmountFlags::DETACH).context("cannot leave the old root")?;
    rec.push(Did { path: Some("/".into()), optional: true, ..did("unmount") });
    let inside = Path::new("/inside");
    rec.open(inside, inside, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    rec.unlink(inside)
}
