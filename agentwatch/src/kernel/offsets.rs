//! The offsets of this kernel, and what is missing.

use std::{fs, os::unix::fs::MetadataExt as _};

use agentwatch_common::offsets::{MISSING, Offsets};

use super::{KernelError, btf::Btf};

/// Fields of modules that need not be loaded: without them single facts are missing, and no event.
const OPTIONAL: &[&str] = &["vsock_local_addr", "vsock_remote_addr"];

/// Of these fields, by which the mounts of a file system hang together, a kernel has one: before 6.18, and since.
const MOUNTS_BEFORE: &str = "mount_mnt_instance";
const MOUNTS_SINCE: &str = "mount_mnt_next_for_sb";

/// What `kernel_read_file` is asked for where a module or another kernel is loaded. Not all kernels have all.
const MODULE_READS: [&str; 4] =
    ["READING_MODULE", "READING_MODULE_COMPRESSED", "READING_KEXEC_IMAGE", "READING_KEXEC_INITRAMFS"];
/// The same of `kernel_load_data`.
const MODULE_LOADS: [&str; 3] = ["LOADING_MODULE", "LOADING_KEXEC_IMAGE", "LOADING_KEXEC_INITRAMFS"];

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
    drop(bytes);
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
            None if *name == MOUNTS_BEFORE || *name == MOUNTS_SINCE => {}
            None => return Err(KernelError::NoField { structure, field: path }),
        }
    }
    if offsets.mount_mnt_instance == MISSING && offsets.mount_mnt_next_for_sb == MISSING {
        return Err(KernelError::NoField { structure: "mount", field: "mnt_instance" });
    }
    offsets.setattr_idmap = u32::from(btf.parameters("bpf_lsm_inode_setattr") == Some(3));
    offsets.init_mount_ns = initial_mount_namespace()?;
    offsets.module_reads = set_of(&btf, &MODULE_READS);
    offsets.module_loads = set_of(&btf, &MODULE_LOADS);
    Ok(Found { offsets, missing })
}

/// The numbers of these names as bits: none where the first of them, which every kernel with modules has, is not there.
fn set_of(btf: &Btf, names: &[&str]) -> u32 {
    let bit = |name: &&str| btf.enumerator(name).and_then(|number| 1_u32.checked_shl(number));
    if names.first().and_then(bit).is_none() {
        return 0;
    }
    names.iter().filter_map(bit).fold(0, |set, bit| set | bit)
}

/// Inode number of the mount namespace of process 1, which is the initial one where agentwatch runs with the
/// host's process ids.
fn initial_mount_namespace() -> Result<u32, KernelError> {
    let path = "/proc/1/ns/mnt";
    let ino = fs::metadata(path).map_err(|source| KernelError::NoNamespace { path, source })?.ino();
    Ok(u32::try_from(ino).unwrap_or(0))
}
