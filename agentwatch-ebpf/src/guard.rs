//! Ways out of sight or out of reach, closed by the guards of the policy.
//!
//! Each is decided by the agent's view alone. What is done is told as well where nobody forbids it, for it is rare. The
//! guards on mounts and on devices are in [`crate::mount`] and [`crate::file`], whose events tell of them; that on
//! delegates is rules about paths.

use agentwatch_common::{
    kind::{GuardAct, RecordKind},
    maps::control,
    record::GuardBody,
    rules::guard,
};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    judge::{Court, Judgement},
    kernel::{Address, field, offset, read_field},
    maps::{PROCESSES, SESSIONS},
    path,
    place::Place,
    record::{Record, fill, part},
    session::{Member, NS_PER_TICK, Task, control_word, process_start},
};

/// What a record says beside its path.
#[derive(Clone, Copy)]
struct Facts {
    act: GuardAct,
    detail: u32,
    /// The other process, or 0.
    pid: u32,
    /// When it began.
    start_ns: u64,
}

impl Facts {
    /// An act that is about no other process.
    #[inline(always)]
    const fn of(act: GuardAct, detail: u32) -> Self {
        Self { act, detail, pid: 0, start_ns: 0 }
    }

    /// An act on another process.
    #[inline(always)]
    fn on(act: GuardAct, detail: u32, task: Task) -> Self {
        // SAFETY: a typed argument (see `field!`).
        Self { act, detail, pid: unsafe { field!(task, task_tgid, u32) }, start_ns: process_start(task) }
    }
}

/// Reports an act that a guard is about; gives what the hook returns. What has no buffer is refused all the same.
#[inline(always)]
fn report(member: &Member, number: u32, judgement: Judgement, facts: Facts, place: Option<Place>) -> i32 {
    let Some(record) = Record::take::<GuardBody>(member, RecordKind::Guard) else {
        return judgement.carry_out();
    };
    let body = record.body::<GuardBody>();
    fill!(
        body,
        target_start_ns: facts.start_ns,
        target_pid: facts.pid,
        detail: facts.detail,
        act: facts.act.raw(),
        guard: number as u8,
    );
    if let Some(place) = place {
        path::append(&record, place, part!(body, path), part!(body, path_fs));
    }
    record.decide(&judgement);
    record.finish(member, RecordKind::Guard)
}

/// The same where the guard alone decides.
#[inline(always)]
fn refuse(member: &Member, number: u32, facts: Facts, place: Option<Place>) -> i32 {
    report(member, number, Court::by_guard(member, number), facts, place)
}

/// `kernel/ptrace.c`, `__ptrace_may_access()`:
/// `int ptrace_access_check(struct task_struct *child, unsigned int mode)`, since 2.6.31.
///
/// Also for memory by `/proc/PID/mem` and `process_vm_writev`, and for `pidfd_getfd`. Looks that change nothing (`ps`)
/// do not count.
#[lsm(hook = "ptrace_access_check")]
pub fn guard_ptrace(ctx: LsmContext) -> i32 {
    const PTRACE_MODE_ATTACH: u32 = 2;
    let Some(member) = Member::current() else { return 0 };
    let mode: u32 = ctx.arg(1);
    if mode & PTRACE_MODE_ATTACH == 0 {
        return 0;
    }
    let facts = Facts::on(GuardAct::Attach, mode, ctx.arg(0));
    let judgement =
        if is_inside(&member, &facts) { Judgement::NONE } else { Court::by_guard(&member, guard::PTRACE) };
    report(&member, guard::PTRACE, judgement, facts, None)
}

/// Whether a process belongs to the session, or to one that began inside it.
#[inline(always)]
fn is_inside(member: &Member, target: &Facts) -> bool {
    /// Sessions inside each other that are followed: agents hardly nest deeper than two.
    const DEPTH: u32 = 8;
    // SAFETY: a copy of plain data.
    let Some(entry) = unsafe { PROCESSES.get(target.pid) }.copied() else { return false };
    let same_ticks = entry.start_ns == 0 && entry.start_ticks == target.start_ns / NS_PER_TICK;
    if entry.start_ns != target.start_ns && !same_ticks {
        return false;
    }
    let mut session = entry.session;
    for _ in 0..DEPTH {
        if session == member.session {
            return true;
        }
        // SAFETY: as above.
        session = match unsafe { SESSIONS.get(session) } {
            Some(known) => known.parent,
            None => return false,
        };
    }
    false
}

/// `kernel/signal.c`, `check_kill_permission()`: `int task_kill(struct task_struct *p, struct kernel_siginfo *info,
/// int sig, const struct cred *cred)`, this form since 4.20.
#[lsm(hook = "task_kill")]
pub fn guard_signal(ctx: LsmContext) -> i32 {
    // Signal 0 asks whether the process is there.
    on_daemon(&ctx, GuardAct::Signal, ctx.arg(2), ctx.arg::<u32>(2) != 0)
}

/// `kernel/sys.c`, `do_prlimit()`:
/// `int task_setrlimit(struct task_struct *p, unsigned int resource, struct rlimit *new_rlim)`, this form since 2.6.38.
/// A limit on its time would end the daemon.
#[lsm(hook = "task_setrlimit")]
pub fn guard_limit(ctx: LsmContext) -> i32 {
    on_daemon(&ctx, GuardAct::Limit, ctx.arg(1), true)
}

/// `kernel/sched`: `int task_setscheduler(struct task_struct *p)`, this form since 2.6.37. Affinity too.
#[lsm(hook = "task_setscheduler")]
pub fn guard_schedule(ctx: LsmContext) -> i32 {
    on_daemon(&ctx, GuardAct::Schedule, 0, true)
}

/// `kernel/sys.c`, `set_one_prio()`: `int task_setnice(struct task_struct *p, int nice)`, since 2.6.
#[lsm(hook = "task_setnice")]
pub fn guard_nice(ctx: LsmContext) -> i32 {
    on_daemon(&ctx, GuardAct::Schedule, 0, true)
}

/// Judges an act on the process that the first argument is, where that is the daemon.
#[inline(always)]
fn on_daemon(ctx: &LsmContext, act: GuardAct, detail: u32, counts: bool) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let facts = Facts::on(act, detail, ctx.arg(0));
    let is_daemon = u64::from(facts.pid) == control_word(control::DAEMON_PID)
        && facts.start_ns / NS_PER_TICK == control_word(control::DAEMON_START_TICKS);
    if is_daemon && counts { refuse(&member, guard::SIGNAL, facts, None) } else { 0 }
}

/// `kernel/cred.c`, `create_user_ns()`: `int userns_create(const struct cred *cred)`, since 6.1.
#[lsm(hook = "userns_create")]
pub fn guard_userns(_ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    refuse(&member, guard::NAMESPACE, Facts::of(GuardAct::UserNamespace, 0), None)
}

/// `fs/namespace.c`, `pivot_root()`:
/// `int sb_pivotroot(const struct path *old_path, const struct path *new_path)`, since 2.6.
#[lsm(hook = "sb_pivotroot")]
pub fn guard_pivot_root(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let place = Some(Place::read(ctx.arg(1)));
    refuse(&member, guard::NAMESPACE, Facts::of(GuardAct::PivotRoot, 0), place)
}

/// `fs/open.c`, `chroot()`: `int path_chroot(const struct path *path)`, since 2.6.35.
#[lsm(hook = "path_chroot")]
pub fn guard_chroot(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let place = Some(Place::read(ctx.arg(0)));
    refuse(&member, guard::NAMESPACE, Facts::of(GuardAct::Chroot, 0), place)
}

/// `fs/kernel_read_file.c`, `kernel_read_file()`: `int kernel_read_file(struct file *file,
/// enum kernel_read_file_id id, bool contents)`, this form since 5.10.
#[lsm(hook = "kernel_read_file")]
pub fn guard_module_file(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    if !has(offset!(module_reads), ctx.arg(1)) {
        return 0;
    }
    let file: Address = ctx.arg(0);
    let place = Some(Place::read(file.wrapping_add(offset!(file_f_path))));
    refuse(&member, guard::MODULE, Facts::of(GuardAct::Load, 0), place)
}

/// `kernel/module`, `init_module()`, and `kernel/kexec.c`, `kexec_load()`:
/// `int kernel_load_data(enum kernel_load_data_id id, bool contents)`, this form since 5.10.
#[lsm(hook = "kernel_load_data")]
pub fn guard_module_data(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    if !has(offset!(module_loads), ctx.arg(0)) {
        return 0;
    }
    refuse(&member, guard::MODULE, Facts::of(GuardAct::Load, 0), None)
}

/// Whether a set has the kernel's number.
#[inline(always)]
fn has(set: usize, number: u32) -> bool {
    number < u32::BITS && set as u32 >> number & 1 != 0
}

/// `kernel/bpf/syscall.c`, `__sys_bpf()`: `int bpf(int cmd, union bpf_attr *attr, unsigned int size)`, since 4.15; with
/// `bool kernel` since 6.16.
#[lsm(hook = "bpf")]
pub fn guard_bpf(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    refuse(&member, guard::BPF, Facts::of(GuardAct::Bpf, ctx.arg(0)), None)
}

/// `security/security.c`, `security_settime64()`:
/// `int settime(const struct timespec64 *ts, const struct timezone *tz)`, this form since 4.6.
///
/// The windows of rules go by the clock. `adjtimex` and `clock_adjtime` move it without asking.
#[lsm(hook = "settime")]
pub fn guard_clock(_ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    refuse(&member, guard::OWN, Facts::of(GuardAct::Clock, 0), None)
}

/// `net/socket.c`, `__sock_create()`:
/// `int socket_create(int family, int type, int protocol, int kern)`, since 2.6.
#[lsm(hook = "socket_create")]
pub fn guard_raw_socket(ctx: LsmContext) -> i32 {
    const AF_INET: u32 = 2;
    const AF_INET6: u32 = 10;
    const AF_PACKET: u32 = 17;
    const AF_XDP: u32 = 44;
    const SOCK_RAW: u32 = 3;
    const SOCK_TYPE_MASK: u32 = 0xf;
    let family: u32 = ctx.arg(0);
    let kind = ctx.arg::<u32>(1) & SOCK_TYPE_MASK;
    let is_raw =
        matches!(family, AF_PACKET | AF_XDP) || matches!(family, AF_INET | AF_INET6) && kind == SOCK_RAW;
    let by_kernel = ctx.arg::<u32>(3) != 0;
    if !is_raw || by_kernel {
        return 0;
    }
    let Some(member) = Member::current() else { return 0 };
    refuse(&member, guard::RAW_SOCKET, Facts::of(GuardAct::RawSocket, family | kind << 16), None)
}

/// `fs/ioctl.c`, `ioctl()`: `int file_ioctl(struct file *file, unsigned int cmd, unsigned long arg)`, since 2.6.
///
/// A key that is put into a terminal is read by whoever reads there next: the shell that the session was started from.
/// So is text that is pasted into a console. What else `TIOCLINUX` does goes by a byte in the caller's memory, which
/// may change meanwhile: all of it is refused.
#[lsm(hook = "file_ioctl")]
pub fn guard_keys(ctx: LsmContext) -> i32 {
    on_ioctl(ctx.arg(0), ctx.arg(1))
}

/// `fs/ioctl.c`, `compat_ioctl()`: `int file_ioctl_compat(struct file *file, unsigned int cmd, unsigned long arg)`, since
/// 6.8, and in later releases of older series. For 32-bit programs, which [`guard_keys`] sees before.
#[lsm(hook = "file_ioctl_compat")]
pub fn guard_keys_compat(ctx: LsmContext) -> i32 {
    on_ioctl(ctx.arg(0), ctx.arg(1))
}

#[inline(always)]
fn on_ioctl(file: Address, command: u32) -> i32 {
    const TIOCSTI: u32 = 0x5412;
    const TIOCLINUX: u32 = 0x541c;
    if !matches!(command, TIOCSTI | TIOCLINUX) {
        return 0;
    }
    let Some(member) = Member::current() else { return 0 };
    let place = Some(Place::read(file.wrapping_add(offset!(file_f_path))));
    refuse(&member, guard::DELEGATE, Facts::of(GuardAct::Keys, command), place)
}

/// What the guard says of opening a file: it is about disks as a whole, and about memory.
#[inline(always)]
pub fn on_device(member: &Member, inode: Address, mode: u32) -> Judgement {
    const TYPE: u32 = 0o170_000;
    const BLOCK: u32 = 0o60_000;
    const CHARACTER: u32 = 0o20_000;
    let is_raw = match mode & TYPE {
        BLOCK => true,
        CHARACTER => is_raw_device(read_field(inode, offset!(inode_i_rdev))),
        _ => false,
    };
    if is_raw { Court::by_guard(member, guard::RAW_DEVICE) } else { Judgement::NONE }
}

/// Whether a device that is read byte by byte is memory, or a disk by another name.
#[inline(always)]
const fn is_raw_device(device: u32) -> bool {
    /// The kernel's own form of a device number.
    const MINOR_BITS: u32 = 20;
    /// `/dev/mem`, `/dev/kmem`, `/dev/port`.
    const MEMORY: [u32; 3] = [1 << MINOR_BITS | 1, 1 << MINOR_BITS | 2, 1 << MINOR_BITS | 4];
    /// Commands to disks (`/dev/sg*`).
    const SCSI_GENERIC: u32 = 21;
    /// Flash memory (`/dev/mtd*`).
    const FLASH: u32 = 90;
    device == MEMORY[0]
        || device == MEMORY[1]
        || device == MEMORY[2]
        || device >> MINOR_BITS == SCSI_GENERIC
        || device >> MINOR_BITS == FLASH
}
