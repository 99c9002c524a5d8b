//! The first file system of a guest: PID 1, the modules it loads, and its job.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::build;
use super::kernel::Kernel;
use crate::job::Job;

/// Writes the initramfs. It is small and uncompressed, so that each run simply makes its own.
///
/// # Errors
/// If PID 1 cannot be built, or a file cannot be read or written.
pub fn write(kernel: &Kernel, job: &Job, place: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "newroot", "modules", "programs"] {
        archive.add(folder, 0o040_755, &[]);
    }
    archive.add("init", 0o100_755, &read(&build::vm_init()?)?);
    for module in kernel.boot_modules()? {
        let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
        archive.add(&format!("modules/{name}"), 0o100_644, &read(&module)?);
    }
    archive.add("job", 0o100_644, &job.encode());
    fs::write(place, archive.finish()).with_context(|| format!("cannot write {}", place.display()))
}

fn read(path: &PathBuf) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A cpio archive in the `newc` format, the one that kernels unpack.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.count += 1;
        // Magic, then in hexadecimal: inode, mode, uid, gid, links, mtime, size, four device
        // numbers, length of the name with its NUL, check sum.
        self.bytes.extend_from_slice(b"070701");
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        for field in [self.count, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_sized() {
        let mut archive = Archive::default();
        archive.add("init", 0o100_755, b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"07070100000001000081ed"));
        // Header (110), name (5) and padding (1) are 116 bytes.
        assert_eq!(bytes.get(116..121), Some(&b"12345"[..]));
        assert!(bytes.windows(10).any(|some| some == b"TRAILER!!!"));
    }
}
