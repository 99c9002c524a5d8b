//! Files opened, and the working directory.

use agentwatch_common::{kind::RecordKind, record::FileBody, rules::op};
use aya_ebpf::{
    macros::{fentry, lsm},
    programs::{FEntryContext, LsmContext},
};

use crate::{
    bound, cause, guard,
    judge::{Court, Judgement, Ops, bit},
    kernel::{Access, Address, Loaded, field, offset},
    look::{look, look_at_file},
    path,
    place::Place,
    record::{Record, fill, part},
    session::{Member, Task},
};

/// `f_flags` of an open that belongs to an exec, whose own event tells of it.
pub const FMODE_EXEC: u32 = 0x20;

/// Kind of the file system behind process descriptors. Since 6.9 `pidfd_open` passes the hook for files: it opens
/// none that has a name.
const PID_FS_MAGIC: u64 = 0x5049_4446;

/// What a record on a file says beside its paths.
#[derive(Clone, Copy)]
pub struct Facts {
    /// See [`FileBody::flags`].
    pub flags: u32,
    /// See [`FileBody::mode`].
    pub mode: u32,
    /// See [`FileBody::uid`].
    pub uid: u32,
    /// See [`FileBody::gid`].
    pub gid: u32,
    /// What is decided about it already, whatever the path is.
    pub decided: Judgement,
}

impl Facts {
    /// Nothing but the paths.
    pub const NONE: Self = Self { flags: 0, mode: 0, uid: u32::MAX, gid: u32::MAX, decided: Judgement::NONE };
}

/// `fs/open.c`, `do_dentry_open()`: `int file_open(struct file *file)`, since 3.5 (as `dentry_open`), this
/// form since 4.18. io_uring and odd system calls pass it too. `O_PATH` does not.
#[lsm(hook = "file_open")]
pub fn file_open(ctx: LsmContext) -> i32 {
    let file: Task = ctx.arg(0);
    let outcome = opened(file);
    if outcome == OUTSIDE {
        cause::on_open(file);
        return 0;
    }
    outcome
}

/// In the place of what a hook returns: no session's process acts. What then looks for causes has the stack for itself.
pub const OUTSIDE: i32 = 1;

/// A file is opened by a process of a session; else [`OUTSIDE`].
#[inline(never)]
fn opened(file: Task) -> i32 {
    let Some(member) = Member::current() else { return OUTSIDE };
    // SAFETY: a typed argument (see `field!`).
    let flags = unsafe { field!(file, file_f_flags, u32) };
    if flags & FMODE_EXEC != 0 {
        return 0;
    }
    // SAFETY: as above.
    let inode = unsafe { field!(file, file_f_inode, Address) };
    let mode = u32::from(Loaded::field::<u16>(inode, offset!(inode_i_mode)));
    let place = Place::of_file(file);
    if place.magic() == PID_FS_MAGIC {
        return 0;
    }
    let decided = guard::on_device(&member, inode, mode);
    let ops = ops_of(flags, place);
    let facts = Facts { flags, mode, decided, ..Facts::NONE };
    let outcome = report_one(&member, RecordKind::FileOpen, place, facts, ops);
    if outcome == 0 && ops & bit(op::WRITE) != 0 {
        cause::note_written(&member, place);
    }
    outcome
}

/// `net/core/scm.c` and `fs/file.c`, `receive_fd()`: `int file_receive(struct file *file)`, since 2.6.
///
/// A descriptor comes from another process: in a message, by `pidfd_getfd`, by seccomp's or binder's means. It is as if
/// it were opened here. What has no place in a file system was opened by no name, and no rule is about it; sockets are
/// told by [`crate::net::net_receive`].
#[lsm(hook = "file_receive")]
pub fn file_receive(ctx: LsmContext) -> i32 {
    const O_PATH: u32 = 0o10_000_000;
    let Some(member) = Member::current() else { return 0 };
    let file: Task = ctx.arg(0);
    // SAFETY: a typed argument (see `field!`).
    let (flags, inode) = unsafe { (field!(file, file_f_flags, u32), field!(file, file_f_inode, Address)) };
    let place = Place::of_file(file);
    // What was opened for its name alone is opened again before anything is done with it.
    if flags & O_PATH != 0 || place.is_internal() {
        return 0;
    }
    let mode = u32::from(Loaded::field::<u16>(inode, offset!(inode_i_mode)));
    let decided = guard::on_device(&member, inode, mode);
    let facts = Facts { flags, mode, decided, ..Facts::NONE };
    let ops = ops_of(flags, place);
    let outcome = report_one(&member, RecordKind::FileReceive, place, facts, ops);
    if outcome == 0 && ops & bit(op::WRITE) != 0 {
        cause::note_written(&member, place);
    }
    outcome
}

/// What an open with these flags asks for.
#[inline(always)]
fn ops_of<A: Access>(flags: u32, place: Place<A>) -> Ops {
    const O_ACCMODE: u32 = 3;
    const O_TRUNC: u32 = 0o1000;
    let access = flags & O_ACCMODE;
    // 0 reads, 1 writes, 2 does both; 3 stands for both permissions without either.
    let mut ops = if access == 1 { 0 } else { bit(op::READ) };
    ops |= if access == 0 { 0 } else { bit(op::WRITE) };
    if flags & O_TRUNC != 0 {
        ops |= bit(op::WRITE) | if place.has_content() { bit(op::DELETE) } else { 0 };
    }
    ops
}

/// `fs/fs_struct.c`, `void set_fs_pwd(struct fs_struct *fs, const struct path *path)`, since 2.6.
///
/// No LSM hook tells of a changed working directory. Without it relative names in arguments cannot be read.
#[fentry(function = "set_fs_pwd")]
pub fn change_cwd(ctx: FEntryContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    report_one(&member, RecordKind::Cwd, Place::read(ctx.arg(1)), Facts::NONE, 0)
}

/// Operations that a rule on a file can be about.
pub const ANY_RULE: Ops = bit(op::EXEC) | bit(op::READ) | bit(op::WRITE) | bit(op::DELETE) | bit(op::CONNECT);

/// Judges and reports an act on one file; gives what the hook returns.
#[inline(always)]
pub fn report_one<A: Access>(
    member: &Member,
    kind: RecordKind,
    place: Place<A>,
    facts: Facts,
    ops: Ops,
) -> i32 {
    let court = Court::of(member, ops);
    let Some((record, body)) = begin(member, kind, place, facts) else {
        return unseen(member, &court, &facts);
    };
    let asked = record.asked([ops, 0]);
    look_at_file(&record, place, [part!(body, path), part!(body, path_fs)], &court, asked);
    bound::on_place(&record, place, asked[0]);
    record.finish(member, kind)
}

/// The same with the end of a name, and of the file where it has no other. Else what any rule refuses there keeps its
/// name, by which the rule knows it.
#[inline(always)]
pub fn report_end(member: &Member, kind: RecordKind, place: Place) -> i32 {
    let kept = kept_by_name(place);
    let court = Court::of(member, bit(op::DELETE) | kept);
    let Some((record, body)) = begin(member, kind, place, Facts::NONE) else {
        return bound::unseen(&court, member).carry_out();
    };
    let asked = record.asked([bit(op::DELETE), kept]);
    look(&record, place, [part!(body, path), part!(body, path_fs)], &court, asked);
    bound::on_place(&record, place, asked[0]);
    record.finish(member, kind)
}

/// What rules are asked about a file that loses a name: one that has others goes on under those.
#[inline(always)]
pub fn kept_by_name(place: Place) -> Ops {
    if place.has_other_names() { ANY_RULE } else { 0 }
}

/// The same with an act on two files, each with what is asked about it. The second half of what is asked is for rules
/// alone, whatever the agent's default is.
#[inline(always)]
pub fn report_two(
    member: &Member,
    kind: RecordKind,
    places: [Place; 2],
    facts: Facts,
    ops: [[Ops; 2]; 2],
) -> i32 {
    let court = Court::of(member, ops[0][0] | ops[0][1] | ops[1][0]);
    let Some((record, body)) = begin(member, kind, places[0], facts) else {
        return unseen(member, &court, &facts);
    };
    look_at_file(&record, places[0], [part!(body, path), part!(body, path_fs)], &court, ops[0]);
    look(&record, places[1], [part!(body, path_to), part!(body, path_to_fs)], &court, ops[1]);
    bound::on_place(&record, places[0], ops[0][0]);
    bound::on_place(&record, places[1], ops[1][0]);
    fill!(body, ino_to: places[1].ino());
    record.finish(member, kind)
}

/// The same with a move from one place to the other, or an exchange. What any rule refuses there keeps its name, by which
/// the rule knows it, and of a folder also what is below it counts.
#[inline(always)]
pub fn report_move(
    member: &Member,
    kind: RecordKind,
    places: [Place; 2],
    facts: Facts,
    ops: [[Ops; 2]; 2],
) -> i32 {
    let court = Court::of(member, ops[0][0] | ops[1][0] | ANY_RULE | bit(op::MOVE_ABOVE));
    let Some((record, body)) = begin(member, kind, places[0], facts) else {
        return unseen(member, &court, &facts);
    };
    let [here, there] = [ops[0], ops[1]].map(|ops| record.asked(ops));
    look(&record, places[0], [part!(body, path), part!(body, path_fs)], &court, here);
    let from = record.known().states();
    look(&record, places[1], [part!(body, path_to), part!(body, path_to_fs)], &court, there);
    let to = record.known().states();
    if let Some(court) = &court {
        if places[0].is_folder() {
            court.on_move(&record, from, to);
        }
        // Where both names are to keep what they name, both are exchanged.
        if there[1] != 0 && places[1].is_folder() {
            court.on_move(&record, to, from);
        }
    }
    // Last: what comes behind would be followed for each way through it.
    bound::on_place(&record, places[0], here[0]);
    bound::on_place(&record, places[1], there[0]);
    fill!(body, ino_to: places[1].ino());
    record.finish(member, kind)
}

/// The same with an act on one file and a text that the caller gave, in kernel memory.
#[inline(always)]
pub fn report_with_text(
    member: &Member,
    kind: RecordKind,
    place: Place,
    text: Address,
    facts: Facts,
    ops: Ops,
) -> i32 {
    let court = Court::of(member, ops);
    let Some((record, body)) = begin(member, kind, place, facts) else {
        return unseen(member, &court, &facts);
    };
    look(&record, place, [part!(body, path), part!(body, path_fs)], &court, [ops, 0]);
    bound::on_place(&record, place, ops);
    path::append_text(&record, text, part!(body, path_to));
    record.finish(member, kind)
}

/// What a hook returns where no buffer was free.
#[inline(always)]
fn unseen(member: &Member, court: &Option<Court>, facts: &Facts) -> i32 {
    if facts.decided.refuses() { facts.decided.carry_out() } else { bound::unseen(court, member).carry_out() }
}

/// Takes a buffer and fills in what is no path.
#[inline(always)]
pub fn begin<A: Access>(
    member: &Member,
    kind: RecordKind,
    place: Place<A>,
    facts: Facts,
) -> Option<(Record, *mut FileBody)> {
    let record = Record::take::<FileBody>(member, kind)?;
    let body = record.body::<FileBody>();
    fill!(
        body,
        ino: place.ino(),
        flags: facts.flags,
        mode: facts.mode,
        uid: facts.uid,
        gid: facts.gid,
    );
    record.decide(&facts.decided);
    bound::take_up(&record, member);
    Some((record, body))
}
