//! One QEMU process with one guest in it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::cmd;
use crate::job::port;
use crate::setup::packages::DEPENDABLE_QEMU;

/// A disk of the guest, by the serial number that the guest finds it with.
#[derive(Debug)]
pub struct Disk {
    /// The serial number.
    pub serial: String,
    /// The image.
    pub image: PathBuf,
    /// Whether the guest may write; what it writes is thrown away.
    pub scratch: bool,
}

/// What a guest is made of.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The kernel to boot.
    pub kernel: &'a Path,
    /// The initramfs.
    pub initramfs: &'a Path,
    /// The disks.
    pub disks: &'a [Disk],
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory.
    pub memory_mb: u32,
    /// Whether time counts instructions.
    pub icount: bool,
    /// Where the kernel's messages go.
    pub console: &'a Path,
    /// Where QEMU's own messages go.
    pub messages: &'a Path,
}

/// The host's ends of the guest's ports. Each ends when QEMU ends.
#[derive(Debug)]
pub struct Ends {
    /// The command's standard output.
    pub stdout: UnixStream,
    /// The command's standard error.
    pub stderr: UnixStream,
    /// The tar stream.
    pub out: UnixStream,
    /// Sentences about the guest's state.
    pub control: UnixStream,
}

/// A running QEMU; killed when this is dropped.
#[derive(Debug)]
pub struct Qemu(Child);

impl Qemu {
    /// Starts the machine.
    ///
    /// # Errors
    /// If QEMU is missing or cannot be started.
    pub fn start(machine: &Machine<'_>) -> Result<(Self, Ends)> {
        let mut command = cmd::command("qemu-system-x86_64")?;
        machine.describe(&mut command);
        let mut theirs = Vec::new();
        let mut connect = |name: &str| add_port(&mut command, name, &mut theirs);
        let ends = Ends {
            stdout: connect(port::STDOUT)?,
            stderr: connect(port::STDERR)?,
            out: connect(port::OUT)?,
            control: connect(port::CONTROL)?,
        };
        let messages = File::create(machine.messages).context("cannot make a file for QEMU's messages")?;
        command.stdout(messages.try_clone().context("cannot duplicate a file")?).stderr(messages);
        pass(&mut command, theirs);
        let child = command.spawn().context("cannot start QEMU: run `cargo xtask setup` to install it")?;
        // The command held our copies of QEMU's ends: they would hide its end from us.
        drop(command);
        Ok((Self(child), ends))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine<'_> {
    fn describe(&self, command: &mut Command) {
        let accel = if self.several_threads() { "tcg,thread=multi" } else { "tcg,thread=single" };
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"]);
        command.args(["-machine", "q35", "-cpu", "Haswell-noTSX", "-accel", accel]);
        command.arg("-smp").arg(self.cpus.to_string()).arg("-m").arg(format!("{}M", self.memory_mb));
        if self.icount {
            command.args(["-icount", "shift=0,sleep=off"]);
        }
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs);
        // An oops ends the guest: a test must not go on with a damaged kernel.
        let mut kernel =
            "console=ttyS0 quiet panic=-1 oops=panic mitigations=off random.trust_cpu=on no_timer_check"
                .to_owned();
        if self.icount {
            // Where a program lies in its address space says how many page tables a fork copies: 2 % more or less.
            kernel.push_str(" norandmaps");
        }
        command.arg("-append").arg(kernel);
        command.arg("-chardev").arg(format!("file,id=console,path={}", escaped(self.console)));
        command.args([
            "-serial",
            "chardev:console",
            "-device",
            "virtio-rng-pci",
            "-device",
            "virtio-serial-pci",
        ]);
        for (number, disk) in self.disks.iter().enumerate() {
            let mode = if disk.scratch { "snapshot=on" } else { "readonly=on" };
            let image = escaped(&disk.image);
            command.arg("-drive").arg(format!("if=none,id=disk{number},format=raw,{mode},file={image}"));
            command.arg("-device").arg(format!("virtio-blk-pci,drive=disk{number},serial={}", disk.serial));
        }
    }

    fn several_threads(&self) -> bool {
        !self.icount && self.cpus > 1 && version().is_some_and(|version| version >= DEPENDABLE_QEMU)
    }
}

/// QEMU's major version.
fn version() -> Option<u32> {
    let text = cmd::read(cmd::command("qemu-system-x86_64").ok()?.arg("--version")).ok()?;
    parse_version(&text)
}

fn parse_version(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("version ")?;
    rest.split('.').next()?.parse().ok()
}

/// In QEMU's options a comma in a value is doubled.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

fn add_port(command: &mut Command, name: &str, theirs: &mut Vec<OwnedFd>) -> Result<UnixStream> {
    let (ours, other) = UnixStream::pair().context("cannot make a socket pair")?;
    let id = name.replace('.', "-");
    command.arg("-chardev").arg(format!("socket,id={id},fd={}", other.as_raw_fd()));
    command.arg("-device").arg(format!("virtserialport,chardev={id},name={name}"));
    theirs.push(other.into());
    Ok(ours)
}

/// Lets QEMU inherit its ends, and end with us.
fn pass(command: &mut Command, theirs: Vec<OwnedFd>) {
    let prepare = move || -> io::Result<()> {
        theirs.iter().try_for_each(|fd| fcntl_setfd(fd, FdFlags::empty()))?;
        Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
    };
    // SAFETY: between fork and exec only fcntl and prctl run: system calls without allocation or locks.
    unsafe { command.pre_exec(prepare) };
}

/// Hands on what comes, at once, until the other end is gone.
///
/// # Errors
/// If the sink takes no more.
pub fn forward(mut source: impl Read, mut sink: impl io::Write) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = source.read(&mut buffer) {
        sink.write_all(buffer.get(..count).unwrap_or_default())?;
        sink.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        assert_eq!(parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\n"), Some(10));
        assert_eq!(parse_version("?"), None);
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(escaped(Path::new("/a,b")), "/a,,b");
    }
}
