//! Through which mount a file is seen, where a hook knows only its name.
//!
//! Of the mounts of the file system, the first in the caller's mount namespace below whose root the name is. All that the
//! search changes lies in the scratch buffer: see [`crate::path::Walk`].

use agentwatch_common::{limits::PATH_COMPONENTS, offsets::MISSING};

use crate::{
    kernel::{Address, kernel_loops, offset, pointer, repeat},
    record::Record,
    session::Task,
};

/// Mounts of one file system that are looked at.
const MOUNTS: u32 = 1024;

/// Where a search stands.
#[repr(C)]
pub struct Search {
    dentry: usize,
    /// The caller's mount namespace.
    namespace: usize,
    /// Root of the file system.
    top: usize,
    /// What follows the last mount.
    end: usize,
    mount: usize,
    climbing: usize,
    root: usize,
    outcome: u64,
}

/// What came of a search.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Through this mount (`struct vfsmount`).
    Through(Address),
    /// Not in the caller's namespace: a layer below another file system, or somebody else's mount.
    Nowhere,
    /// There are more mounts than are looked at.
    Unknown,
}

const SEARCHING: u64 = 0;
const FOUND: u64 = 1;
const ENDED: u64 = 2;

/// Reads and writes fields of the search in memory, each time.
macro_rules! state {
    ($search:expr, $field:ident) => {{
        // SAFETY: the search lies in a scratch buffer in use, valid for the whole run of the program.
        unsafe { (&raw const (*$search).$field).read_volatile() }
    }};
    ($search:expr, $field:ident = $value:expr) => {{
        let value = $value;
        // SAFETY: as above.
        unsafe { (&raw mut (*$search).$field).write_volatile(value) }
    }};
}

/// What the steps work on.
struct Context {
    search: *mut Search,
}

/// Looks through which mount the caller sees a name.
#[inline(always)]
pub fn seen_through(record: &Record, task: Task, dentry: Address) -> Seen {
    if !kernel_loops() {
        return Seen::Nowhere;
    }
    let search = record.search();
    let namespace = pointer(pointer(task, offset!(task_nsproxy)), offset!(nsproxy_mnt_ns));
    state!(search, namespace = namespace as usize);
    look(search, dentry)
}

#[inline(always)]
fn look(search: *mut Search, dentry: Address) -> Seen {
    let sb = pointer(dentry, offset!(dentry_d_sb));
    let first = pointer(sb, offset!(super_block_s_mounts));
    state!(search, dentry = dentry as usize);
    state!(search, top = pointer(sb, offset!(super_block_s_root)) as usize);
    if in_lists() {
        // A list whose head is in the file system, through a field of each mount.
        state!(search, end = sb.wrapping_add(offset!(super_block_s_mounts)) as usize);
    } else {
        state!(search, end = 0);
    }
    state!(search, mount = first as usize);
    state!(search, outcome = SEARCHING);
    repeat(MOUNTS, try_mount, &mut Context { search });
    let mount = state!(search, mount) as Address;
    match state!(search, outcome) {
        FOUND => Seen::Through(mount.wrapping_add(offset!(mount_mnt))),
        ENDED => Seen::Nowhere,
        _ => Seen::Unknown,
    }
}

/// Whether this kernel keeps the mounts of a file system in a list: before 6.18.
#[inline(always)]
fn in_lists() -> bool {
    offset!(mount_mnt_instance) != MISSING as usize
}

/// One mount. In lists `mount` is that of the list's field until it is found.
#[inline(never)]
extern "C" fn try_mount(_index: u32, context: &mut Context) -> i64 {
    let search = context.search;
    let node = state!(search, mount);
    if node == 0 || node == state!(search, end) {
        state!(search, outcome = ENDED);
        return 1;
    }
    let (mount, next) = if in_lists() {
        // The next is what the list's field begins with.
        ((node as Address).wrapping_sub(offset!(mount_mnt_instance)), pointer(node as Address, 0))
    } else {
        (node as Address, pointer(node as Address, offset!(mount_mnt_next_for_sb)))
    };
    let namespace = pointer(mount, offset!(mount_mnt_ns)) as usize;
    if namespace != 0 && namespace == state!(search, namespace) {
        let root = pointer(mount, offset!(mount_mnt) + offset!(vfsmount_mnt_root)) as usize;
        state!(search, root = root);
        state!(search, climbing = state!(search, dentry));
        if root != state!(search, top) {
            repeat(PATH_COMPONENTS, climb, context);
        }
        if root == state!(search, top) || state!(search, climbing) == root {
            state!(search, mount = mount as usize);
            state!(search, outcome = FOUND);
            return 1;
        }
    }
    state!(search, mount = next as usize);
    0
}

/// One name up, until the mount's root or that of all.
#[inline(never)]
extern "C" fn climb(_index: u32, context: &mut Context) -> i64 {
    let search = context.search;
    let here = state!(search, climbing);
    if here == state!(search, root) {
        return 1;
    }
    let parent = pointer(here as Address, offset!(dentry_d_parent)) as usize;
    state!(search, climbing = parent);
    i64::from(parent == 0 || parent == here)
}
