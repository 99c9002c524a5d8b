//! Attributes of files that have no hook with a whole path: extended ones, access control lists, times, flags.
//!
//! The hooks know only the name: the path is that through the mount by which the caller sees it ([`crate::mounted`]).
//! What the caller sees through none is a layer below another file system, on which the same was judged above, and is told
//! with its path in its file system.

use agentwatch_common::{kind::RecordKind, rules::op};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    bound,
    file::{Facts, begin, report_one},
    judge::{Court, bit},
    kernel::{Address, offset, read_field},
    look::look_at_file,
    mounted::{self, Seen},
    path,
    place::Place,
    record::part,
    session::Member,
};

/// Judges and reports the change of an attribute, perhaps with its name.
#[inline(always)]
fn report(member: &Member, kind: RecordKind, dentry: Address, name: Address) -> i32 {
    let court = Court::of(member, bit(op::WRITE));
    let within = Place::new(core::ptr::null(), dentry);
    let Some((record, body)) = begin(member, kind, within, Facts::NONE) else {
        return bound::unseen(&court, member).carry_out();
    };
    let seen = mounted::seen_through(&record, member.task, dentry);
    let (place, judges) = match seen {
        Seen::Through(mnt) => (Place::new(mnt, dentry), true),
        Seen::Nowhere | Seen::Unknown => (within, false),
    };
    let asked = if judges { court } else { None };
    if !judges {
        bound::let_go(&record, seen == Seen::Unknown);
    }
    look_at_file(&record, place, [part!(body, path), part!(body, path_fs)], &asked, [bit(op::WRITE), 0]);
    bound::on_place(&record, place, bit(op::WRITE));
    if seen == Seen::Unknown
        && let Some(court) = &court
    {
        record.decide(&court.undecided());
    }
    path::append_text(&record, name, part!(body, path_to));
    record.finish(member, kind)
}

/// `fs/xattr.c`, `__vfs_setxattr_locked()`: `int inode_setxattr(struct mnt_idmap *idmap,
/// struct dentry *dentry, const char *name, const void *value, size_t size, int flags)`, this form since 5.12.
#[lsm(hook = "inode_setxattr")]
pub fn file_xattr_set(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    report(&member, RecordKind::FileXattr, ctx.arg(1), ctx.arg(2))
}

/// `fs/xattr.c`, `__vfs_removexattr_locked()`: `int inode_removexattr(struct mnt_idmap *idmap,
/// struct dentry *dentry, const char *name)`, this form since 5.12.
#[lsm(hook = "inode_removexattr")]
pub fn file_xattr_remove(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    report(&member, RecordKind::FileXattr, ctx.arg(1), ctx.arg(2))
}

/// `fs/posix_acl.c`, `vfs_set_acl()`: `int inode_set_acl(struct mnt_idmap *idmap, struct dentry *dentry,
/// const char *acl_name, struct posix_acl *kacl)`, since 6.2. Before, lists are extended attributes to the hooks.
#[lsm(hook = "inode_set_acl")]
pub fn file_acl_set(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    report(&member, RecordKind::FileXattr, ctx.arg(1), ctx.arg(2))
}

/// `fs/posix_acl.c`, `vfs_remove_acl()`: `int inode_remove_acl(struct mnt_idmap *idmap, struct dentry *dentry,
/// const char *acl_name)`, since 6.2.
#[lsm(hook = "inode_remove_acl")]
pub fn file_acl_remove(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    report(&member, RecordKind::FileXattr, ctx.arg(1), ctx.arg(2))
}

/// `fs/attr.c`, `notify_change()`: `int inode_setattr(struct mnt_idmap *idmap, struct dentry *dentry,
/// struct iattr *attr)`; before 6.9 without the first.
///
/// Only times that somebody sets: modes, owners and lengths have hooks with a path.
#[lsm(hook = "inode_setattr")]
pub fn file_times(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    // Read all, and hide them: a load from a place that is worked out first is refused.
    let first: Address = core::hint::black_box(ctx.arg(0));
    let second: Address = core::hint::black_box(ctx.arg(1));
    if offset!(setattr_idmap) == 0 {
        times(&member, first, second)
    } else {
        let third: Address = core::hint::black_box(ctx.arg(2));
        times(&member, second, third)
    }
}

#[inline(always)]
fn times(member: &Member, dentry: Address, attributes: Address) -> i32 {
    const MODE: u32 = 1;
    const UID: u32 = 1 << 1;
    const GID: u32 = 1 << 2;
    const SIZE: u32 = 1 << 3;
    const ATIME: u32 = 1 << 4;
    const MTIME: u32 = 1 << 5;
    let valid: u32 = read_field(attributes, offset!(iattr_ia_valid));
    if valid & (ATIME | MTIME) == 0 || valid & (MODE | UID | GID | SIZE) != 0 {
        return 0;
    }
    report(member, RecordKind::FileTimes, dentry, core::ptr::null())
}

/// `fs/ioctl.c`, `ioctl()`: `int file_ioctl(struct file *file, unsigned int cmd, unsigned long arg)`, since 2.6. Where
/// [`file_flags`] is there, this is not needed.
#[lsm(hook = "file_ioctl")]
pub fn file_flags_ioctl(ctx: LsmContext) -> i32 {
    const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
    const FS_IOC32_SETFLAGS: u32 = 0x4004_6602;
    const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;
    let command: u32 = ctx.arg(1);
    if !matches!(command, FS_IOC_SETFLAGS | FS_IOC32_SETFLAGS | FS_IOC_FSSETXATTR) {
        return 0;
    }
    let Some(member) = Member::current() else { return 0 };
    let file: Address = ctx.arg(0);
    let place = Place::read(file.wrapping_add(offset!(file_f_path)));
    report_one(&member, RecordKind::FileFlags, place, Facts::NONE, bit(op::WRITE))
}

/// `fs/file_attr.c`, `vfs_fileattr_set()`: `int inode_file_setattr(struct dentry *dentry, struct file_kattr *fa)`, since
/// 6.17. For `ioctl` and for `file_setattr`.
#[lsm(hook = "inode_file_setattr")]
pub fn file_flags(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    report(&member, RecordKind::FileFlags, ctx.arg(0), core::ptr::null())
}
