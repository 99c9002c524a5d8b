//! File systems mounted and unmounted, as far as the guard lets them.

use agentwatch_common::{kind::RecordKind, rules::guard};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    file::{Facts, begin, report_one, report_two, report_with_text},
    judge::Court,
    kernel::{Address, offset, pointer},
    path,
    place::Place,
    record::part,
    session::Member,
};

/// What the guard decides.
#[inline(always)]
fn guarded(member: &Member) -> Facts {
    Facts { decided: Court::by_guard(member, guard::MOUNT), ..Facts::NONE }
}

/// `fs/namespace.c`, `path_mount()`: `int sb_mount(const char *dev_name, const struct path *path,
/// const char *type, unsigned long flags, void *data)`, since 2.6.
#[lsm(hook = "sb_mount")]
pub fn mount_old(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let facts = Facts { flags: ctx.arg::<u64>(3) as u32, ..guarded(&member) };
    report_with_text(&member, RecordKind::Mount, Place::read(ctx.arg(1)), ctx.arg(0), facts, 0)
}

/// `fs/namespace.c`, `vfs_move_mount()`: `int move_mount(const struct path *from_path,
/// const struct path *to_path)`, since 5.2. The last step of the newer way to mount.
#[lsm(hook = "move_mount")]
pub fn mount_new(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let places = [Place::read(ctx.arg(1)), Place::read(ctx.arg(0))];
    report_two(&member, RecordKind::Mount, places, guarded(&member), [[0; 2]; 2])
}

/// `fs/namespace.c`, `do_umount()`: `int sb_umount(struct vfsmount *mnt, int flags)`, since 2.6.
#[lsm(hook = "sb_umount")]
pub fn unmount(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let mnt: Address = ctx.arg(0);
    let place = Place::new(mnt, pointer(mnt, offset!(vfsmount_mnt_root)));
    let facts = Facts { flags: ctx.arg(1), ..guarded(&member) };
    report_one(&member, RecordKind::Unmount, place, facts, 0)
}

/// `fs/namespace.c`, `do_new_mount_fc()` and `fsmount()`: `int sb_kern_mount(const struct super_block *sb)`, this form
/// since 5.1. What `fsmount` makes can be used before it has a place.
#[lsm(hook = "sb_kern_mount")]
pub fn mount_made(ctx: LsmContext) -> i32 {
    refuse_quietly(ctx.arg(0))
}

/// `fs/super.c`, `reconfigure_super()`: `int sb_remount(struct super_block *sb, void *mnt_opts)`, since 4.20.
#[lsm(hook = "sb_remount")]
pub fn mount_changed(ctx: LsmContext) -> i32 {
    refuse_quietly(ctx.arg(0))
}

/// For hooks that are asked behind another one, which makes the event: they tell only what they refuse.
#[inline(always)]
fn refuse_quietly(sb: Address) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let facts = guarded(&member);
    if !facts.decided.refuses() {
        return 0;
    }
    let place = Place::new(core::ptr::null(), pointer(sb, offset!(super_block_s_root)));
    let Some((record, body)) = begin(&member, RecordKind::Mount, place, facts) else {
        return facts.decided.carry_out();
    };
    path::append_one(&record, place, part!(body, path));
    record.finish(&member, RecordKind::Mount)
}
