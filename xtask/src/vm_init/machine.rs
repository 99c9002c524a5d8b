//! The guest as a machine: modules, disks, mounts, network, limits, power.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{Resource, Rlimit, chroot, setrlimit};
use rustix::system::{RebootCommand, finit_module, reboot, sethostname};

use crate::job::{Job, MODULES_DISK, PROGRAMS_DISK, ROOT_DISK};

/// How long disks and ports may take to appear after their drivers are loaded.
const DEVICE_DEADLINE: Duration = Duration::from_secs(30);
const NEW_ROOT: &str = "/newroot";

/// Mounts what the rest of this program reads: devices, processes, sysfs.
pub fn early_mounts() -> Result<(), String> {
    put("devtmpfs", "devtmpfs", "/dev", MountFlags::NOSUID, c"mode=0755")?;
    put("proc", "proc", "/proc", SAFE, c"")?;
    put("sysfs", "sysfs", "/sys", SAFE, c"")
}

const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Loads the initramfs's modules in the order of their names, which the host chose.
pub fn load_modules() -> Result<(), String> {
    let Ok(entries) = fs::read_dir("/modules") else { return Ok(()) };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        let module = File::open(&file).map_err(|error| format!("cannot open {}: {error}", file.display()))?;
        match finit_module(&module, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => (),
            Err(error) => return Err(format!("the kernel refuses the module {}: {error}", file.display())),
        }
        // The initramfs is memory: give it back.
        let _ = fs::remove_file(&file);
    }
    Ok(())
}

/// The virtio-serial ports by name.
pub struct Ports(HashMap<String, PathBuf>);

impl Ports {
    /// Waits for the ports and finds their device files.
    pub fn find() -> Result<Self, String> {
        wait_for("the virtio-serial ports", || {
            let ports = by_attribute("/sys/class/virtio-ports", "name");
            ports.contains_key(crate::job::port::CONTROL).then_some(Self(ports))
        })
    }

    /// Opens one for reading and writing.
    pub fn open(&self, name: &str) -> Result<File, String> {
        let path = self.0.get(name).ok_or_else(|| format!("the machine has no virtio-serial port {name}"))?;
        let open = || File::options().read(true).write(true).open(path).ok();
        // devtmpfs may make the file a moment after sysfs names it.
        wait_for(&format!("{} to open", path.display()), open)
    }
}

/// Device files under `/dev` by an attribute of theirs in sysfs.
fn by_attribute(class: &str, attribute: &str) -> HashMap<String, PathBuf> {
    let entries = fs::read_dir(class).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let value = fs::read_to_string(entry.path().join(attribute)).ok()?;
        Some((value.trim().to_owned(), Path::new("/dev").join(entry.file_name())))
    });
    named.collect()
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if start.elapsed() > DEVICE_DEADLINE {
            return Err(format!("waited {} s in vain for {what}", DEVICE_DEADLINE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Makes the machine that the command will see, and enters its root.
pub fn assemble(job: &Job) -> Result<(), String> {
    let wanted = 2 + job.shares.len() + usize::from(job.has_programs);
    let disks = wait_for("the disks", || {
        let mut disks = by_attribute("/sys/block", "serial");
        disks.retain(|serial, file| !serial.is_empty() && file.exists());
        (disks.len() >= wanted).then_some(disks)
    })?;
    mount_disk(&disks, ROOT_DISK, "ext4", NEW_ROOT, MountFlags::NOATIME)?;
    let modules = format!("{NEW_ROOT}/lib/modules/{}", job.release);
    mount_disk(&disks, MODULES_DISK, "squashfs", &modules, MountFlags::RDONLY)?;
    for (disk, name) in &job.shares {
        mount_disk(&disks, disk, "squashfs", &format!("{NEW_ROOT}/share/{name}"), MountFlags::RDONLY)?;
    }
    if job.has_programs {
        install_programs(&disks)?;
    }
    enter_root()?;
    late_mounts()?;
    settle()
}

fn mount_disk(
    disks: &HashMap<String, PathBuf>,
    serial: &str,
    kind: &str,
    target: &str,
    flags: MountFlags,
) -> Result<(), String> {
    let device = disks.get(serial).ok_or_else(|| format!("the machine has no disk {serial}"))?;
    put(&device.to_string_lossy(), kind, target, flags, c"")
}

/// Mounts, making the target first.
fn put(source: &str, kind: &str, target: &str, flags: MountFlags, data: &CStr) -> Result<(), String> {
    fs::create_dir_all(target).map_err(|error| format!("cannot make {target}: {error}"))?;
    mount(source, target, kind, flags, data)
        .map_err(|error| format!("cannot mount {source} ({kind}) at {target}: {error}"))
}

/// Copies the programs under test to `/usr/local/bin`, so that they are ordinary files there.
fn install_programs(disks: &HashMap<String, PathBuf>) -> Result<(), String> {
    let failed =
        |error: std::io::Error| format!("cannot copy the programs under test to /usr/local/bin: {error}");
    mount_disk(disks, PROGRAMS_DISK, "squashfs", "/programs", MountFlags::RDONLY)?;
    for entry in fs::read_dir("/programs").map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = Path::new(NEW_ROOT).join("usr/local/bin").join(entry.file_name());
        fs::copy(entry.path(), target).map_err(failed)?;
    }
    rustix::mount::unmount("/programs", rustix::mount::UnmountFlags::empty())
        .map_err(|error| format!("cannot unmount /programs: {error}"))
}

/// Moves the early mounts to the new root and makes it `/`.
fn enter_root() -> Result<(), String> {
    for name in ["/dev", "/proc", "/sys"] {
        mount_move(name, format!("{NEW_ROOT}{name}"))
            .map_err(|error| format!("cannot move {name} to the new root: {error}"))?;
    }
    let _ = fs::remove_file("/init");
    let enter = || {
        rustix::process::chdir(NEW_ROOT)?;
        mount_move(".", "/")?;
        chroot(".")?;
        rustix::process::chdir("/")
    };
    enter().map_err(|error| format!("cannot enter the root file system: {error}"))
}

fn late_mounts() -> Result<(), String> {
    put(
        "devpts",
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        c"gid=5,mode=620,ptmxmode=666",
    )?;
    put("tmpfs", "tmpfs", "/dev/shm", MountFlags::NOSUID | MountFlags::NODEV, c"")?;
    put("tmpfs", "tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755")?;
    put("tmpfs", "tmpfs", "/run/lock", SAFE, c"mode=1777")?;
    put("cgroup2", "cgroup2", "/sys/fs/cgroup", SAFE, c"nsdelegate")?;
    put("bpf", "bpf", "/sys/fs/bpf", SAFE, c"mode=700")?;
    put("securityfs", "securityfs", "/sys/kernel/security", SAFE, c"")?;
    put("debugfs", "debugfs", "/sys/kernel/debug", SAFE, c"")?;
    put("tracefs", "tracefs", "/sys/kernel/tracing", SAFE, c"")?;
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        // devtmpfs of some kernels has them already.
        let _ = symlink(target, link);
    }
    fs::create_dir_all("/out").map_err(|error| format!("cannot make /out: {error}"))
}

/// Name, limits, loopback. The clock is right: the kernel reads it from the machine.
fn settle() -> Result<(), String> {
    sethostname(b"agentwatch").map_err(|error| format!("cannot set the host name: {error}"))?;
    for (resource, current, maximum) in [
        (Resource::Nofile, Some(65_536), Some(1_048_576)),
        (Resource::Nproc, None, None),
        (Resource::Core, Some(0), None),
    ] {
        setrlimit(resource, Rlimit { current, maximum })
            .map_err(|error| format!("cannot set a limit: {error}"))?;
    }
    let up = Command::new("/sbin/ip").args(["link", "set", "lo", "up"]).status();
    match up {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("cannot bring up the loopback interface: {other:?}")),
    }
}

/// Says on the console why the guest gives up.
pub fn last_words(sentence: &str) {
    let text = format!("vm-init: {sentence}\n");
    let console = File::options().write(true).open("/dev/console");
    // Without a console nobody can be told.
    let _ = console.and_then(|mut console| console.write_all(text.as_bytes()));
}

/// Ends the machine. If the kernel refuses, PID 1 ends, and the kernel panics, which ends it too.
pub fn power_off() {
    let _ = reboot(RebootCommand::PowerOff);
}
