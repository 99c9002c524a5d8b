//! The offsets of this kernel, and what is missing.

use std::{fs, os::unix::fs::MetadataExt as _};

use agentwatch_common::offsets::Offsets;

use super::{KernelError, btf::Btf};

/// Fields of modules that need not be loaded: without them single facts are missing, and no event.
const OPTIONAL: &[&str] = &["vsock_local_addr", "vsock_remote_addr"];

/// What this kernel's type information says.
#[derive(Clone, Debug)]
pub struct Found {
    /// The offsets, for the programs.
    pub offsets: Offsets,
    /// Optional fields that this kernel does not have.
    pub missing: Vec<&'static str>,
}

/// Reads the kernel's type information.
///
/// # Errors
/// No type information, or a field that agentwatch cannot do without.
pub fn find() -> Result<Found, KernelError> {
    let path = "/sys/kernel/btf/vmlinux";
    let bytes = fs::read(path).map_err(|source| KernelError::NoBtf { path, source })?;
    let mut btf = Btf::parse(&bytes)?;
    // Built in on some kernels, a module on others, and perhaps not loaded.
    if let Ok(module) = fs::read("/sys/kernel/btf/vsock") {
        btf.append(&module)?;
    }
    let mut offsets = Offsets::UNKNOWN;
    let mut missing = Vec::new();
    for (slot, (name, structure, path)) in offsets.slots().zip(Offsets::FIELDS) {
        match btf.offset(structure, path) {
            Some(offset) => *slot = offset,
            None if OPTIONAL.contains(name) => missing.push(*name),
            None => return Err(KernelError::NoField { structure, field: path }),
        }
    }
    offsets.init_mount_ns = initial_mount_namespace()?;
    Ok(Found { offsets, missing })
}

/// Inode number of the mount namespace of process 1, which is the initial one where agentwatch runs with the
/// host's process ids.
fn initial_mount_namespace() -> Result<u32, KernelError> {
    let path = "/proc/1/ns/mnt";
    let ino = fs::metadata(path).map_err(|source| KernelError::NoNamespace { path, source })?.ino();
    Ok(u32::try_from(ino).unwrap_or(0))
}
