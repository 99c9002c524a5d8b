//! Programs that rules keep from being started, or from being mapped as code by another program.

use agentwatch_common::{kind::RecordKind, rules::op};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    bound, cause, delegate,
    file::{Facts, OUTSIDE, begin},
    job,
    judge::{Court, Judgement, bit},
    kernel::{Address, field, offset},
    look::look_at_file,
    path,
    place::Place,
    record::part,
    session::{Member, Task},
};

/// `fs/exec.c`, `search_binary_handler()`: `int bprm_check_security(struct linux_binprm *bprm)`, since 2.6.
///
/// Once for the file that was named, and once more for each interpreter that it leads to. Nothing of the old program is
/// gone yet.
#[lsm(hook = "bprm_check_security")]
pub fn exec_check(ctx: LsmContext) -> i32 {
    let bprm: Task = ctx.arg(0);
    let outcome = started(bprm);
    if outcome == OUTSIDE {
        cause::on_start(bprm);
        job::on_start();
        delegate::on_start();
        return 0;
    }
    outcome
}

/// A program is started by a process of a session; else [`OUTSIDE`].
#[inline(never)]
fn started(bprm: Task) -> i32 {
    let Some(member) = Member::current() else { return OUTSIDE };
    // SAFETY: a typed argument (see `field!`).
    let (file, filename, interp) = unsafe {
        (
            field!(bprm, binprm_file, Address),
            field!(bprm, binprm_filename, Address),
            field!(bprm, binprm_interp, Address),
        )
    };
    // The first look of this exec: what an earlier one that failed has left does not count.
    let before = if filename == interp { Judgement::NONE } else { member.exec_judgement() };
    let judgement = judge_file(&member, file, RecordKind::ExecRefused, [bit(op::EXEC), 0]);
    member.note_exec(&before.or_stricter(judgement));
    judgement.carry_out()
}

/// `security/security.c`, `security_mmap_file()`, since 2.6.39:
/// `int mmap_file(struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags)`.
///
/// A loader that is started itself maps the program that it is told to run. Only rules count here, and no default: code
/// of libraries is mapped by every program.
#[lsm(hook = "mmap_file")]
pub fn exec_map(ctx: LsmContext) -> i32 {
    const PROT_EXEC: u64 = 4;
    let file: Address = ctx.arg(0);
    let prot: u64 = ctx.arg(2);
    // Most of what is mapped is no code.
    if file.is_null() || prot & PROT_EXEC == 0 {
        return 0;
    }
    let outcome = mapped(file);
    if outcome == OUTSIDE {
        cause::on_map(file);
        return 0;
    }
    outcome
}

/// Code is mapped by a process of a session; else [`OUTSIDE`].
#[inline(never)]
fn mapped(file: Address) -> i32 {
    let Some(member) = Member::current() else { return OUTSIDE };
    judge_file(&member, file, RecordKind::FileMap, [0, bit(op::EXEC)]).carry_out()
}

/// Judges the start of a file, and reports it where it is refused.
#[inline(always)]
fn judge_file(member: &Member, file: Address, kind: RecordKind, ops: [u32; 2]) -> Judgement {
    let court = Court::of(member, bit(op::EXEC));
    // What binds a session says nothing of what is mapped.
    let is_bound = ops[0] != 0 && bound::is_bound(member);
    if court.is_none() && !is_bound {
        return Judgement::NONE;
    }
    let path = file.wrapping_add(offset!(file_f_path));
    let place = Place::read(path);
    let Some((record, body)) = begin(member, kind, place, Facts::NONE) else {
        return bound::unseen(&court, member);
    };
    look_at_file(&record, place, [part!(body, path), part!(body, path_fs)], &court, ops);
    bound::on_place(&record, place, ops[0]);
    let judgement = record.decided();
    // What the mode only tells of is on the exec's own event.
    let told =
        if kind.raw() == RecordKind::FileMap.raw() { judgement.is_remarkable() } else { judgement.refuses() };
    if told {
        record.submit(member, kind, path::used(record.walk()));
    }
    record.release();
    judgement
}
