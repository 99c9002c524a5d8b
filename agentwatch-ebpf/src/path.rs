//! Paths, found by walking from a name up to the root.
//!
//! `bpf_d_path` would shorten a path by the caller's own root, and few hooks allow it, so the walk is ours.
//! It takes no lock: a rename in the middle of it can mix old and new names, as it can for `d_path` readers
//! that look afterwards.

use core::mem::offset_of;

use agentwatch_common::{
    limits::{NAME_BYTES, PATH_COMPONENTS, TAIL_BYTES},
    record::{PathDesc, path_flag},
};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;

use crate::{
    kernel::{
        Access, Address, Loaded, field, kernel_loops, offset, pointer, read_field, repeat, two_pointers,
    },
    place::Place,
    record::{Record, fill},
    session::{Task, current_task},
};

/// Where a walk stands. Kept in the scratch buffer and not in registers: what comes from there is unknown to the
/// verifier, so that all ways through one step look alike to it at the next, and its work stays linear.
#[repr(C)]
pub struct Walk {
    dentry: usize,
    /// The mount in which it is (`struct mount`), and what is read of it at once.
    mount: usize,
    head: MountHead,
    at: u64,
    flags: u64,
    components: u64,
    finished: u64,
    reading: Reading,
    /// Where each name of the last walk begins in the tail, the deepest first.
    names: [u32; PATH_COMPONENTS as usize],
}

/// Where the reading of a path from the root down stands, kept here for the same reason.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Reading {
    /// Names that are still to be begun.
    pub names: u64,
    /// Where in the tail the next byte is.
    pub at: u64,
    /// 1 when a name was begun.
    pub begun: u64,
}

/// Reads and writes fields of the walk in memory, each time.
macro_rules! state {
    ($walk:expr, $($field:ident).+) => {{
        // SAFETY: the walk lies in a scratch buffer in use, valid for the whole run of the program.
        unsafe { (&raw const (*$walk).$($field).+).read_volatile() }
    }};
    ($walk:expr, $field:ident = $value:expr) => {{
        let value = $value;
        // SAFETY: as above.
        unsafe { (&raw mut (*$walk).$field).write_volatile(value) }
    }};
}

/// Appends the names of a place to the tail, the deepest first, and says what they are worth.
///
/// Two walks where the first ends in another mount namespace: the second gives the path within the file
/// system, from which the daemon finds the path in the initial namespace.
#[inline(always)]
pub fn append<A: Access>(record: &Record, place: Place<A>, whole: *mut PathDesc, within: *mut PathDesc) {
    if append_whole(record, place, whole) {
        append_within(record, place, within);
    }
}

/// The first walk of [`append`]; true where there must be a second.
#[inline(always)]
pub fn append_whole<A: Access>(record: &Record, place: Place<A>, desc: *mut PathDesc) -> bool {
    follow(record.tail(), record.walk(), &place, desc) & u64::from(path_flag::OTHER_NS) != 0
}

/// The second walk of [`append`].
#[inline(always)]
pub fn append_within<A: Access>(record: &Record, place: Place<A>, desc: *mut PathDesc) {
    follow(record.tail(), record.walk(), &place.within(), desc);
}

/// The second walk of [`append`] for what no record tells: the tail is left as it was.
#[inline(always)]
pub fn walk_within<A: Access>(record: &Record, place: Place<A>, desc: *mut PathDesc) {
    let used = state!(record.walk(), at);
    append_within(record, place, desc);
    fill!(desc, len: 0, flags: 0, components: 0, mount_ns: 0, dev: 0);
    state!(record.walk(), at = used);
}

/// The first walk of [`append`] for what no record tells: the tail is left as it was. 1 where the path is one of another
/// mount namespace, else 0: no branch comes of it here.
#[inline(always)]
pub fn walk_untold(record: &Record, place: Place) -> u32 {
    const { assert!(path_flag::OTHER_NS.is_power_of_two()) };
    let used = state!(record.walk(), at);
    let flags = follow(record.tail(), record.walk(), &place, record.known().desc());
    state!(record.walk(), at = used);
    (flags >> path_flag::OTHER_NS.trailing_zeros()) as u32 & 1
}

/// One walk of those of [`append`].
#[inline(always)]
pub fn append_one<A: Access>(record: &Record, place: Place<A>, desc: *mut PathDesc) {
    follow(record.tail(), record.walk(), &place, desc);
}

/// How many names the last walk found.
#[inline(always)]
pub fn names(walk: *const Walk) -> u64 {
    state!(walk, components)
}

/// Where a name of the last walk begins in the tail; they are numbered from 0, the deepest first.
#[inline(always)]
pub fn name_at(walk: *const Walk, number: u64) -> u32 {
    // SAFETY: masked to the array, which lies in a scratch buffer in use.
    unsafe { (&raw const (*walk).names).cast::<u32>().add(number as usize & NAMES_MASK).read_volatile() }
}

/// Where the reading of the path stands.
#[inline(always)]
pub fn reading(walk: *const Walk) -> Reading {
    state!(walk, reading)
}

/// Keeps where the reading of the path stands.
#[inline(always)]
pub fn set_reading(walk: *mut Walk, reading: Reading) {
    state!(walk, reading = reading);
}

/// Whether the last walk found the whole path.
#[inline(always)]
pub fn is_whole(walk: *const Walk) -> bool {
    state!(walk, flags) & u64::from(path_flag::TRUNCATED | path_flag::FAULT) == 0
}

/// Says where the next text of the tail begins: 0 for a new record.
#[inline(always)]
pub fn set_used(walk: *mut Walk, at: u64) {
    state!(walk, at = at);
}

/// Bytes of the tail that are used.
#[inline(always)]
pub fn used(walk: *const Walk) -> u64 {
    state!(walk, at)
}

/// One walk; gives the flags. A subprogram, so that the code is not repeated.
#[inline(never)]
fn follow<A: Access>(tail: *mut u8, walk: *mut Walk, place: &Place<A>, desc: *mut PathDesc) -> u64 {
    let start = state!(walk, at);
    let within_fs = place.mnt.is_null();
    state!(walk, dentry = place.dentry as usize);
    enter_mount(walk, if within_fs { place.mnt } else { place.mnt.wrapping_sub(offset!(mount_mnt)) });
    state!(walk, components = 0);
    state!(walk, flags = place.deleted() | if within_fs { WITHIN_FS } else { 0 });
    state!(walk, finished = 0);
    let mut buffers = Buffers { tail, walk, dentry: place.dentry };
    // Without such loops the verifier would follow the turns of both.
    if A::LOADS && kernel_loops() {
        repeat(PATH_COMPONENTS / CLIMB_NAMES, climb, &mut buffers);
    }
    if state!(walk, finished) == 0 {
        repeat(PATH_COMPONENTS, step_of, &mut buffers);
    }
    let mut flags = state!(walk, flags);
    if state!(walk, finished) == 0 {
        flags |= u64::from(path_flag::TRUNCATED);
        state!(walk, flags = flags);
    }
    let mut mount_ns = 0;
    if !within_fs {
        mount_ns = mount_namespace(state!(walk, mount) as Address);
        if mount_ns as usize != offset!(init_mount_ns) {
            flags |= u64::from(path_flag::OTHER_NS);
        }
    }
    fill!(
        desc,
        len: (state!(walk, at) - start) as u32,
        flags: flags as u16,
        components: state!(walk, components) as u16,
        mount_ns: mount_ns,
        dev: place.dev(),
    );
    flags
}

/// What a step of the walk works on.
struct Buffers {
    tail: *mut u8,
    walk: *mut Walk,
    /// Where a climb stands. Not in the buffer, from where it would have no type.
    dentry: Address,
}

/// Some names up by loads, until the root of the mount. Behind it the verifier does not know what it sees.
#[inline(never)]
extern "C" fn climb(_index: u32, buffers: &mut Buffers) -> i64 {
    let walk = buffers.walk;
    for _ in 0..CLIMB_NAMES {
        let dentry = buffers.dentry;
        if dentry as usize == state!(walk, head.root) {
            return 1;
        }
        let parent = Loaded::pointer(dentry, offset!(dentry_d_parent));
        let name = Loaded::pointer(dentry, offset!(dentry_d_name) + offset!(qstr_name));
        buffers.dentry = parent;
        if take_name(buffers.tail, walk, dentry, parent, name) {
            state!(walk, finished = 1);
            return 1;
        }
    }
    0
}

/// Names that a turn of a climb takes: the kernel's call for each turn costs a fifth of a name.
const CLIMB_NAMES: u32 = 4;

/// One step of the walk, as the kernel calls it.
#[inline(never)]
extern "C" fn step_of(_index: u32, buffers: &mut Buffers) -> i64 {
    if step(buffers.tail, buffers.walk) {
        state!(buffers.walk, finished = 1);
        return 1;
    }
    0
}

const NAMES_MASK: usize = PATH_COMPONENTS as usize - 1;
const _: () = assert!(PATH_COMPONENTS.is_power_of_two());

const WITHIN_FS: u64 = path_flag::WITHIN_FS as u64;

/// One name up, or from a mount's root to the place where it is mounted. True at the end.
#[inline(always)]
fn step(tail: *mut u8, walk: *mut Walk) -> bool {
    let dentry = state!(walk, dentry) as Address;
    if dentry as usize == state!(walk, head.root) {
        return leave_mount(walk);
    }
    // Between the two lie the hash and the length of the name.
    let name = offset!(dentry_d_name) + offset!(qstr_name);
    let [parent, name] = two_pointers::<1>(dentry, offset!(dentry_d_parent), name);
    take_name(tail, walk, dentry, parent, name)
}

/// Appends a name, and goes on at its parent. True at the end.
#[inline(always)]
fn take_name(tail: *mut u8, walk: *mut Walk, dentry: Address, parent: Address, name: Address) -> bool {
    if parent.is_null() {
        return true;
    }
    let (at, number) = (state!(walk, at), state!(walk, components));
    if at > (TAIL_BYTES - NAME_BYTES) as u64 || number >= u64::from(PATH_COMPONENTS) {
        state!(walk, flags = state!(walk, flags) | u64::from(path_flag::TRUNCATED));
        return true;
    }
    // SAFETY: `at` is at most TAIL_BYTES - NAME_BYTES here, and a name of NAME_BYTES fits behind it.
    let read =
        unsafe { bpf_probe_read_kernel_str(tail.add(at as usize).cast(), NAME_BYTES as u32, name.cast()) };
    if read <= 0 {
        state!(walk, flags = state!(walk, flags) | u64::from(path_flag::FAULT));
        return true;
    }
    // A root is its own parent. That of a file system is named `/`; a file of memory has a name and no folder.
    let alone = parent == dentry;
    // SAFETY: the first byte of the name just read.
    if alone && unsafe { tail.add(at as usize).read_volatile() } == b'/' {
        return true;
    }
    state!(walk, at = at + read as u64);
    // SAFETY: masked to the array, which lies in a scratch buffer in use.
    unsafe {
        (&raw mut (*walk).names).cast::<u32>().add(number as usize & NAMES_MASK).write_volatile(at as u32)
    };
    state!(walk, components = number + 1);
    state!(walk, dentry = parent as usize);
    alone
}

/// Goes on at the place where the mount is mounted. True where it is mounted nowhere: the root.
#[inline(always)]
fn leave_mount(walk: *mut Walk) -> bool {
    let MountHead { parent, mountpoint, .. } = state!(walk, head);
    if parent == state!(walk, mount) || parent == 0 {
        return true;
    }
    state!(walk, dentry = mountpoint);
    enter_mount(walk, parent as Address);
    false
}

/// What a walk needs of a mount, as it lies together in current kernels.
#[derive(Clone, Copy)]
#[repr(C)]
struct MountHead {
    parent: usize,
    mountpoint: usize,
    root: usize,
}

/// Reads a mount. Of none all is null, which is no name's address.
#[inline(always)]
fn enter_mount(walk: *mut Walk, mount: Address) {
    let (parent, mountpoint) = (offset!(mount_mnt_parent), offset!(mount_mnt_mountpoint));
    let root = offset!(mount_mnt) + offset!(vfsmount_mnt_root);
    let is_together = mountpoint.wrapping_sub(parent) == offset_of!(MountHead, mountpoint)
        && root.wrapping_sub(parent) == offset_of!(MountHead, root);
    let head = if is_together {
        read_field(mount, parent)
    } else {
        MountHead {
            parent: read_field(mount, parent),
            mountpoint: read_field(mount, mountpoint),
            root: read_field(mount, root),
        }
    };
    state!(walk, mount = mount as usize);
    state!(walk, head = head);
}

/// Inode number of the namespace of a mount; 0 for a mount that is in none.
#[inline(always)]
fn mount_namespace(mount: Address) -> u32 {
    let namespace = pointer(mount, offset!(mount_mnt_ns));
    // SAFETY: a typed chain from the current task (see `field!`).
    let own = unsafe { field!(field!(current_task(), task_nsproxy, Task), nsproxy_mnt_ns, Task) };
    if namespace == own {
        // SAFETY: as above.
        return unsafe { field!(own, mnt_namespace_inum, u32) };
    }
    // Detached mounts have none, and unmounted ones an error pointer: both fault and read as 0.
    read_field(namespace, offset!(mnt_namespace_inum))
}

/// Appends a text as it is, with its NUL: not more than a path may have, and never cut in silence.
#[inline(always)]
pub fn append_text(record: &Record, text: Address, desc: *mut PathDesc) {
    /// Longest text that a caller may give (`PATH_MAX`).
    const TEXT_BYTES: u64 = 4096;
    fill!(desc, flags: path_flag::VERBATIM);
    if text.is_null() {
        return;
    }
    let walk = record.walk();
    let at = state!(walk, at);
    if at > TAIL_BYTES as u64 - TEXT_BYTES {
        fill!(desc, flags: path_flag::VERBATIM | path_flag::TRUNCATED);
        return;
    }
    // SAFETY: `at` leaves room for TEXT_BYTES, just checked.
    let read = unsafe {
        bpf_probe_read_kernel_str(record.tail().add(at as usize).cast(), TEXT_BYTES as u32, text.cast())
    };
    if read <= 0 {
        fill!(desc, flags: path_flag::VERBATIM | path_flag::FAULT);
        return;
    }
    fill!(desc, len: read as u32);
    state!(walk, at = at + read as u64);
}
