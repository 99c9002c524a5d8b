//! Names and attributes of files changed.
//!
//! The `path_*` hooks know the mount and so the whole path; `CONFIG_SECURITY_PATH` brings them. What has none is in
//! [`crate::attribute`].

use agentwatch_common::{kind::RecordKind, rules::op};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    file::{
        ANY_RULE, Facts, kept_by_name, report_end, report_move, report_one, report_two, report_with_text,
    },
    judge::{Ops, bit},
    kernel::{Address, offset, pointer},
    place::Place,
    session::Member,
};

/// `renameat2` with this flag puts each of two files in the other's place.
const RENAME_EXCHANGE: u32 = 2;

/// What setting the length of a file asks for. The hooks do not tell the length that is left: one with content can be
/// emptied.
#[inline(always)]
fn ops_of_truncate(place: Place) -> Ops {
    bit(op::WRITE) | if place.has_content() { bit(op::DELETE) } else { 0 }
}

/// A name in the folder that a hook got as `const struct path *dir`.
#[inline(always)]
fn name_in(dir: Address, dentry: Address) -> Place {
    Place::new(pointer(dir, offset!(path_mnt)), dentry)
}

/// `fs/namei.c`, `may_o_create()` and `do_mknodat()`:
/// `int path_mknod(const struct path *dir, struct dentry *dentry, umode_t mode, unsigned int dev)`, since 2.6.29.
#[lsm(hook = "path_mknod")]
pub fn file_create(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let facts = Facts { mode: ctx.arg::<u32>(2) & 0xffff, ..Facts::NONE };
    report_one(&member, RecordKind::FileCreate, name_in(ctx.arg(0), ctx.arg(1)), facts, bit(op::WRITE))
}

/// `fs/namei.c`, `do_mkdirat()`:
/// `int path_mkdir(const struct path *dir, struct dentry *dentry, umode_t mode)`, since 2.6.29.
#[lsm(hook = "path_mkdir")]
pub fn file_mkdir(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let facts = Facts { mode: ctx.arg::<u32>(2) & 0xffff, ..Facts::NONE };
    report_one(&member, RecordKind::FileMkdir, name_in(ctx.arg(0), ctx.arg(1)), facts, bit(op::WRITE))
}

/// `fs/namei.c`, `do_rmdir()`: `int path_rmdir(const struct path *dir, struct dentry *dentry)`, since 2.6.29.
#[lsm(hook = "path_rmdir")]
pub fn file_rmdir(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let place = name_in(ctx.arg(0), ctx.arg(1));
    report_one(&member, RecordKind::FileRmdir, place, Facts::NONE, bit(op::DELETE))
}

/// `fs/namei.c`, `do_unlinkat()`: `int path_unlink(const struct path *dir, struct dentry *dentry)`, since 2.6.29.
#[lsm(hook = "path_unlink")]
pub fn file_delete(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    report_end(&member, RecordKind::FileDelete, name_in(ctx.arg(0), ctx.arg(1)))
}

/// `fs/namei.c`, `do_renameat2()`: `int path_rename(const struct path *old_dir, struct dentry *old_dentry,
/// const struct path *new_dir, struct dentry *new_dentry, unsigned int flags)`, since 2.6.29; `flags` since
/// 5.19. Before that the fifth word is the verdict of earlier programs, which is 0.
#[lsm(hook = "path_rename")]
pub fn file_rename(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let places = [name_in(ctx.arg(0), ctx.arg(1)), name_in(ctx.arg(2), ctx.arg(3))];
    let facts = Facts { flags: ctx.arg(4), ..Facts::NONE };
    // What is renamed away is gone from its place; what was at the other place is gone, or comes to this one.
    let (exchange, kept) = if facts.flags & RENAME_EXCHANGE == 0 {
        (0, kept_by_name(places[1]))
    } else {
        (bit(op::WRITE), ANY_RULE)
    };
    let over = if places[1].ino() == 0 { 0 } else { bit(op::DELETE) };
    let ops = [[bit(op::DELETE) | exchange, ANY_RULE], [bit(op::WRITE) | over, kept]];
    report_move(&member, RecordKind::FileRename, places, facts, ops)
}

/// `fs/namei.c`, `do_linkat()`: `int path_link(struct dentry *old_dentry, const struct path *new_dir,
/// struct dentry *new_dentry)`, since 2.6.29. The old name is on the same mount as the new.
#[lsm(hook = "path_link")]
pub fn file_link(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let places = [name_in(ctx.arg(1), ctx.arg(0)), name_in(ctx.arg(1), ctx.arg(2))];
    // A second name would be a way round every rule on the first.
    let any_rule = bit(op::READ) | bit(op::EXEC) | bit(op::DELETE);
    report_two(
        &member,
        RecordKind::FileLink,
        places,
        Facts::NONE,
        [[bit(op::WRITE), any_rule], [bit(op::WRITE), 0]],
    )
}

/// `fs/namei.c`, `do_symlinkat()`: `int path_symlink(const struct path *dir, struct dentry *dentry,
/// const char *old_name)`, since 2.6.29.
#[lsm(hook = "path_symlink")]
pub fn file_symlink(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let place = name_in(ctx.arg(0), ctx.arg(1));
    report_with_text(&member, RecordKind::FileSymlink, place, ctx.arg(2), Facts::NONE, bit(op::WRITE))
}

/// `fs/open.c`, `vfs_truncate()`: `int path_truncate(const struct path *path)`, since 2.6.29. Before 6.2 also
/// for `ftruncate` and `O_TRUNC`.
#[lsm(hook = "path_truncate")]
pub fn file_truncate_path(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let place = Place::read(ctx.arg(0));
    report_one(&member, RecordKind::FileTruncate, place, Facts::NONE, ops_of_truncate(place))
}

/// `fs/open.c`, `do_ftruncate()`, and `fs/namei.c`, `handle_truncate()`:
/// `int file_truncate(struct file *file)`, since 6.2.
#[lsm(hook = "file_truncate")]
pub fn file_truncate_open(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let file: Address = ctx.arg(0);
    let place = Place::read(file.wrapping_add(offset!(file_f_path)));
    report_one(&member, RecordKind::FileTruncate, place, Facts::NONE, ops_of_truncate(place))
}

/// `fs/open.c`, `chmod_common()`: `int path_chmod(const struct path *path, umode_t mode)`, since 3.1.
#[lsm(hook = "path_chmod")]
pub fn file_mode(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let facts = Facts { mode: ctx.arg::<u32>(1) & 0xffff, ..Facts::NONE };
    report_one(&member, RecordKind::FileMode, Place::read(ctx.arg(0)), facts, bit(op::WRITE))
}

/// `fs/open.c`, `chown_common()`: `int path_chown(const struct path *path, kuid_t uid, kgid_t gid)`, since
/// 2.6.29. Arguments that are structures can be traced since 6.1.
#[lsm(hook = "path_chown")]
pub fn file_owner(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let facts = Facts { uid: ctx.arg(1), gid: ctx.arg(2), ..Facts::NONE };
    report_one(&member, RecordKind::FileOwner, Place::read(ctx.arg(0)), facts, bit(op::WRITE))
}
