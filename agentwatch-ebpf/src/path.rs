//! Paths, found by walking from a name up to the root.
//!
//! `bpf_d_path` would shorten a path by the caller's own root, and few hooks allow it, so the walk is ours.
//! It takes no lock: a rename in the middle of it can mix old and new names, as it can for `d_path` readers
//! that look afterwards.

use agentwatch_common::{
    limits::{NAME_BYTES, PATH_COMPONENTS, TAIL_BYTES},
    record::{PathDesc, path_flag},
};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;

use crate::{
    kernel::{Address, offset, pointer, read, read_or},
    record::fill,
};

/// A name in a mounted file system (`struct path`).
#[derive(Clone, Copy)]
pub struct Place {
    /// The mount (`struct vfsmount`), or null where only the name is known.
    pub mnt: Address,
    /// The name (`struct dentry`).
    pub dentry: Address,
}

impl Place {
    /// Reads a `struct path`.
    #[inline(always)]
    pub fn read(path: Address) -> Self {
        Self { mnt: pointer(path, offset!(path_mnt)), dentry: pointer(path, offset!(path_dentry)) }
    }

    /// Inode number of the name, or 0 where it has none.
    #[inline(always)]
    pub fn ino(self) -> u64 {
        let inode = pointer(self.dentry, offset!(dentry_d_inode));
        if inode.is_null() { 0 } else { read_or(inode, offset!(inode_i_ino), 0) }
    }
}

/// Where a walk stands, and what it has found.
struct Walk {
    dentry: Address,
    mount: Address,
    mount_root: Address,
    tail: *mut u8,
    at: u64,
    flags: u16,
    components: u16,
}

/// Appends the names of a place to the tail, the deepest first, and says what they are worth. `at` is moved.
///
/// Two walks where the first ends in another mount namespace: the second gives the path within the file
/// system, from which the daemon finds the path in the initial namespace.
#[inline(always)]
pub fn append(tail: *mut u8, at: &mut u64, place: Place, whole: *mut PathDesc, within: *mut PathDesc) {
    let flags = walk(tail, at, &place, whole);
    if flags & path_flag::OTHER_NS != 0 {
        walk(tail, at, &Place { mnt: core::ptr::null(), dentry: place.dentry }, within);
    }
}

/// One walk; gives the flags. A subprogram, so that the verifier's work and the code are not repeated.
#[inline(never)]
pub fn walk(tail: *mut u8, at: &mut u64, place: &Place, desc: *mut PathDesc) -> u16 {
    let start = *at;
    let sb = pointer(place.dentry, offset!(dentry_d_sb));
    let dev = read_or(sb, offset!(super_block_s_dev), 0);
    let mut walk = Walk {
        dentry: place.dentry,
        mount: core::ptr::null(),
        mount_root: core::ptr::null(),
        tail,
        at: start,
        flags: name_flags(place.dentry),
        components: 0,
    };
    if place.mnt.is_null() {
        walk.flags |= path_flag::WITHIN_FS;
    } else {
        walk.mount = place.mnt.wrapping_sub(offset!(mount_mnt));
        walk.mount_root = pointer(place.mnt, offset!(vfsmount_mnt_root));
    }
    let mut finished = false;
    for _ in 0..PATH_COMPONENTS {
        if walk.step() {
            finished = true;
            break;
        }
    }
    if !finished {
        walk.flags |= path_flag::TRUNCATED;
    }
    let mut mount_ns = 0;
    if !place.mnt.is_null() {
        mount_ns = mount_namespace(walk.mount);
        if mount_ns as usize != offset!(init_mount_ns) {
            walk.flags |= path_flag::OTHER_NS;
        }
    }
    fill!(
        desc,
        len: (walk.at - start) as u32,
        flags: walk.flags,
        components: walk.components,
        mount_ns: mount_ns,
        dev: dev,
    );
    *at = walk.at;
    walk.flags
}

impl Walk {
    /// One name up, or from a mount's root to the place where it is mounted. True at the end.
    #[inline(always)]
    fn step(&mut self) -> bool {
        if self.dentry == self.mount_root {
            return self.leave_mount();
        }
        let parent = pointer(self.dentry, offset!(dentry_d_parent));
        if parent == self.dentry || parent.is_null() {
            return true;
        }
        if self.at > (TAIL_BYTES - NAME_BYTES) as u64 {
            self.flags |= path_flag::TRUNCATED;
            return true;
        }
        let name = pointer(self.dentry, offset!(dentry_d_name) + offset!(qstr_name));
        // SAFETY: `at` is at most TAIL_BYTES - NAME_BYTES here, and a name of NAME_BYTES fits behind it.
        let read = unsafe {
            bpf_probe_read_kernel_str(self.tail.add(self.at as usize).cast(), NAME_BYTES as u32, name.cast())
        };
        if read <= 0 || read > NAME_BYTES as i64 {
            self.flags |= path_flag::FAULT;
            return true;
        }
        self.at += read as u64;
        self.components += 1;
        self.dentry = parent;
        false
    }

    /// Goes on at the place where the mount is mounted. True where it is mounted nowhere: the root.
    #[inline(always)]
    fn leave_mount(&mut self) -> bool {
        let parent = pointer(self.mount, offset!(mount_mnt_parent));
        if parent == self.mount || parent.is_null() {
            return true;
        }
        self.dentry = pointer(self.mount, offset!(mount_mnt_mountpoint));
        self.mount = parent;
        self.mount_root = pointer(parent, offset!(mount_mnt) + offset!(vfsmount_mnt_root));
        false
    }
}

/// Whether the file behind a name still has one.
#[inline(always)]
fn name_flags(dentry: Address) -> u16 {
    let inode = pointer(dentry, offset!(dentry_d_inode));
    if inode.is_null() {
        return 0;
    }
    match read::<u32>(inode.wrapping_add(offset!(inode_i_nlink))) {
        Some(0) => path_flag::DELETED,
        _ => 0,
    }
}

/// Inode number of the namespace of a mount; 0 for a mount that is in none.
#[inline(always)]
fn mount_namespace(mount: Address) -> u32 {
    let namespace = pointer(mount, offset!(mount_mnt_ns));
    // Detached mounts have none, and unmounted ones an error pointer, which faults and reads as 0.
    if namespace.is_null() { 0 } else { read_or(namespace, offset!(mnt_namespace_inum), 0) }
}

/// Appends a text as it is, with its NUL: not more than a path may have, and never cut in silence.
#[inline(always)]
pub fn append_text(tail: *mut u8, at: &mut u64, text: Address, desc: *mut PathDesc) {
    /// Longest text that a caller may give (`PATH_MAX`).
    const TEXT_BYTES: u64 = 4096;
    fill!(desc, flags: path_flag::VERBATIM);
    if text.is_null() {
        return;
    }
    if *at > TAIL_BYTES as u64 - TEXT_BYTES {
        fill!(desc, flags: path_flag::VERBATIM | path_flag::TRUNCATED);
        return;
    }
    // SAFETY: `at` leaves room for TEXT_BYTES, just checked.
    let read = unsafe {
        bpf_probe_read_kernel_str(tail.add(*at as usize).cast(), TEXT_BYTES as u32, text.cast())
    };
    if read <= 0 || read > TEXT_BYTES as i64 {
        fill!(desc, flags: path_flag::VERBATIM | path_flag::FAULT);
        return;
    }
    fill!(desc, len: read as u32);
    *at += read as u64;
}
