//! Delegates: programs that start others for whoever asks them by a Unix socket (tmux, systemd, a container engine).
//!
//! What a session sends marks the socket that it goes to. A delegate that reads from there has heard the session, and so have
//! the processes that it makes within [`ASKED_NS`] of that; the first program that one of these starts is a session of its own,
//! as with a file that was left behind ([`crate::cause`]). What a delegate sends to another is passed on in the same way. It is
//! known by whom it was asked and when, and not what. One that does one thing after the other acts for whom it heard last; of
//! any other it is told where it heard from others as well. Nothing is decided by what is remembered here.

use agentwatch_common::{
    kind::CauseBy,
    limits::{ASKED_NS, DELEGATES_MOST},
    maps::{AskedEntry, SESSION_OF_SELF_TEST, asked_flag, control, source},
};
use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_boot_ns},
    macros::fexit,
    programs::FExitContext,
};

use crate::{
    address::AF_UNIX,
    cause::{self, Use},
    kernel::{Address, field, offset, pointer, read_field},
    maps::{ASKED, CONTROL, HEARD, PROCESSES},
    place::Place,
    record::ANY,
    session::{Member, Task, control_word, current_task, process_start},
};

/// Somebody is about to send by a socket: see [`crate::net`].
#[inline(always)]
pub fn on_send(socket: Task) {
    if !is_unix_stream(socket) {
        return;
    }
    if let Some(member) = Member::current() {
        if member.session != SESSION_OF_SELF_TEST {
            ask(socket, &member);
        }
    } else if let Some(now_ns) = last_asked() {
        pass_on(socket, now_ns);
    }
}

/// Whether a socket is a Unix one for streams.
#[inline(always)]
fn is_unix_stream(socket: Task) -> bool {
    // SAFETY: a typed argument (see `field!`).
    let kind = unsafe { field!(socket, socket_type, u16) };
    kind == SOCK_STREAM && read_field::<u16>(sk_of(socket), offset!(sock_family)) == AF_UNIX
}

/// A session says something.
#[inline(always)]
fn ask(socket: Task, member: &Member) {
    let peer = peer_of(socket);
    // Who has no name was not asked, but answers.
    if pointer(peer, offset!(unix_sock_addr)).is_null() {
        return;
    }
    let at_ns = now_ns();
    let said = AskedEntry { session: member.session, at_ns, start_ns: 0, pid: member.pid, hops: 0, flags: 0 };
    let _ = ASKED.insert(peer as u64, said, ANY);
    if let Some(word) = CONTROL.get_ptr_mut(control::LAST_ASKED) {
        // SAFETY: a valid, aligned map value. Of two that write at once either is right.
        unsafe { word.write_volatile(at_ns) };
    }
}

/// A process outside says something: for whom it has heard, whichever end of the socket it has. What it says for nobody is no
/// session's, whoever had the socket before.
#[inline(always)]
fn pass_on(socket: Task, now_ns: u64) {
    let peer = peer_of(socket);
    match heard(current_pid(), process_start(current_task()), now_ns) {
        Some(heard) if heard.hops < DELEGATES_MOST && !peer.is_null() => {
            let flags = heard.flags & asked_flag::OTHERS;
            let _ = ASKED.insert(
                peer as u64,
                AskedEntry { start_ns: 0, hops: heard.hops + 1, flags, ..*heard },
                ANY,
            );
        }
        _ => drop(ASKED.remove(peer as u64)),
    }
}

/// The other end of a socket; null where there is none.
#[inline(always)]
fn peer_of(socket: Task) -> Address {
    pointer(sk_of(socket), offset!(unix_sock_peer))
}

/// The protocol side of a socket. By a helper, as the verifier of current kernels wants to see of what it knows itself that it is
/// there.
#[inline(always)]
fn sk_of(socket: Task) -> Address {
    pointer(socket, offset!(socket_sk))
}

/// `net/unix/af_unix.c`, since 2.6:
/// `int unix_stream_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)`. Since 4.1 with these
/// arguments. At its end, as before there may be no message yet.
#[inline(always)]
fn on_heard(ctx: &FExitContext) -> i32 {
    const MSG_PEEK: i32 = 2;
    let Some(now_ns) = last_asked() else { return 0 };
    if ctx.arg::<i32>(RESULT) <= 0 || ctx.arg::<i32>(3) & MSG_PEEK != 0 {
        return 0;
    }
    let pid = current_pid();
    // SAFETY: nothing of it is read.
    if unsafe { PROCESSES.get(pid) }.is_some() {
        return 0;
    }
    let sk = sk_of(ctx.arg(0));
    // SAFETY: plain data; another message may come to it meanwhile.
    match unsafe { ASKED.get(sk as u64) } {
        Some(said) if is_fresh(said, now_ns) => hear(pid, said, now_ns),
        _ => hear_others(pid, sk),
    }
    0
}

// Twice, for the kernel skips a tracing program that was preempted on this CPU and is not through yet: then the other one
// runs. What both do is what one does.
#[fexit(function = "unix_stream_recvmsg")]
pub fn delegate_heard(ctx: FExitContext) -> i32 {
    on_heard(&ctx)
}

/// As [`delegate_heard`].
#[fexit(function = "unix_stream_recvmsg")]
pub fn delegate_heard_2(ctx: FExitContext) -> i32 {
    on_heard(&ctx)
}

/// Behind the arguments of `unix_stream_recvmsg` lies what it gave.
const RESULT: usize = 4;

/// A process outside reads what a session said.
#[inline(always)]
fn hear(pid: u32, said: &AskedEntry, now_ns: u64) {
    let task = current_task();
    let way = match cause::kind_of_program(task) {
        source::DELEGATE => asked_flag::IN_TURN | asked_flag::BY_NAME,
        source::ENGINE => asked_flag::BY_NAME,
        source::ON_BUS => 0,
        _ => return,
    };
    let start_ns = process_start(task);
    let (others, hops) = match heard(pid, start_ns, now_ns) {
        // What comes back of what was passed on is no further away.
        Some(before) if before.session == said.session => {
            (before.flags & asked_flag::OTHERS, before.hops.min(said.hops))
        }
        Some(_) => (asked_flag::OTHERS, said.hops),
        None => (0, said.hops),
    };
    let entry = AskedEntry { start_ns, hops, flags: said.flags | others | way, ..*said };
    let _ = HEARD.insert(pid, entry, ANY);
}

/// A process outside reads what somebody else said.
#[inline(always)]
fn hear_others(pid: u32, sk: Address) {
    let Some(entry) = HEARD.get_ptr_mut(pid) else { return };
    // SAFETY: a valid map value. Where it is used again meanwhile for another process that is told too much of.
    let flags = unsafe { &raw mut (*entry).flags };
    // SAFETY: as above.
    let before = unsafe { flags.read_volatile() };
    if before & asked_flag::BY_NAME != 0 && pointer(sk, offset!(unix_sock_addr)).is_null() {
        return;
    }
    if before & asked_flag::IN_TURN == 0 {
        // SAFETY: as above.
        unsafe { flags.write_volatile(before | asked_flag::OTHERS) };
    } else {
        let _ = HEARD.remove(pid);
    }
}

/// A process outside every session makes another: what it has heard counts for that as well.
#[inline(always)]
pub fn on_made(child: Task, child_pid: u32) {
    if let Some(now_ns) = last_asked()
        && let Some(heard) = heard(current_pid(), process_start(current_task()), now_ns)
    {
        let start_ns = process_start(child);
        let _ = HEARD.insert(
            child_pid,
            AskedEntry { start_ns, flags: heard.flags | asked_flag::MADE, ..*heard },
            ANY,
        );
    }
}

/// A process starts a program, which may be what a session asked for. What is on its way to be started is still the
/// delegate's program here.
#[inline(never)]
pub fn on_start() {
    let Some(now_ns) = last_asked() else { return };
    let (pid, task) = (current_pid(), current_task());
    let Some(heard) = heard(pid, process_start(task), now_ns) else { return };
    // SAFETY: nothing of it is read.
    if heard.flags & asked_flag::MADE == 0 || unsafe { PROCESSES.get(pid) }.is_some() {
        return;
    }
    let used = Use {
        by: CauseBy::Asked,
        writer: heard.session,
        ino: 0,
        generation: 0,
        asker: heard.pid,
        others: u8::from(heard.flags & asked_flag::OTHERS != 0),
    };
    cause::begin(Place::of_program(task), &used);
}

/// What a process has heard that counts still.
#[inline(always)]
fn heard(pid: u32, start_ns: u64, now_ns: u64) -> Option<&'static AskedEntry> {
    // By its address: a copy that there may not be is more than the verifier understands.
    // SAFETY: plain data, of which the process alone is told; what it hears meanwhile counts.
    let heard = unsafe { HEARD.get(pid) }?;
    (heard.start_ns == start_ns && is_fresh(heard, now_ns)).then_some(heard)
}

/// Whether it was said a short time ago.
#[inline(always)]
fn is_fresh(said: &AskedEntry, now_ns: u64) -> bool {
    now_ns.wrapping_sub(said.at_ns) < ASKED_NS
}

/// The time, if any session asked for something a short time ago. This is all that others pay for.
#[inline(always)]
fn last_asked() -> Option<u64> {
    let last_ns = control_word(control::LAST_ASKED);
    let now_ns = if last_ns == 0 { return None } else { now_ns() };
    // Another CPU may have written a later time than was taken here.
    (now_ns < last_ns.wrapping_add(ASKED_NS)).then_some(now_ns)
}

/// The type of sockets for streams.
const SOCK_STREAM: u16 = 1;

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

#[inline(always)]
fn current_pid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}
