//! File systems mounted and unmounted.

use agentwatch_common::kind::RecordKind;
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    file::{Facts, report_one, report_two, report_with_text},
    kernel::{Address, offset, pointer},
    path::Place,
    session::Member,
};

/// `fs/namespace.c`, `path_mount()`: `int sb_mount(const char *dev_name, const struct path *path,
/// const char *type, unsigned long flags, void *data)`, since 2.6.
#[lsm(hook = "sb_mount")]
pub fn mount_old(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let facts = Facts { flags: ctx.arg::<u64>(3) as u32, ..Facts::NONE };
    report_with_text(&member, RecordKind::Mount, Place::read(ctx.arg(1)), ctx.arg(0), facts, 0)
}

/// `fs/namespace.c`, `vfs_move_mount()`: `int move_mount(const struct path *from_path,
/// const struct path *to_path)`, since 5.2. The last step of the newer way to mount.
#[lsm(hook = "move_mount")]
pub fn mount_new(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let places = [Place::read(ctx.arg(1)), Place::read(ctx.arg(0))];
    report_two(&member, RecordKind::Mount, places, Facts::NONE, [[0; 2]; 2])
}

/// `fs/namespace.c`, `do_umount()`: `int sb_umount(struct vfsmount *mnt, int flags)`, since 2.6.
#[lsm(hook = "sb_umount")]
pub fn unmount(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let mnt: Address = ctx.arg(0);
    let place = Place { mnt, dentry: pointer(mnt, offset!(vfsmount_mnt_root)) };
    let facts = Facts { flags: ctx.arg(1), ..Facts::NONE };
    report_one(&member, RecordKind::Unmount, place, facts, 0)
}
