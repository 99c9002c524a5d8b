//! Names that sessions ask name servers for: what they are told is learned before they can use it.
//!
//! A socket by which a session asks is marked. A packet from a name server is read before it is put into the queue of
//! such a socket, and so before anybody receives it; what it says of names of rules that refuse is kept for that session
//! alone, and looked up where it connects. What a session makes itself be told only has more refused. An answer that
//! cannot be learned whole does not reach a session to which a rule refuses something of its name.

use agentwatch_common::{
    answer::{
        ANSWER_BYTES, ANSWER_STEPS, Answer, Asker, LEARNED_NAMES, Learned, LearnedKey, NAME_UNDECIDED,
        NameKey, Step,
    },
    kind::{LossReason, RecordKind},
    limits::{NAME_GRACE_S, TAIL_BYTES},
    maps::control,
    rules::{SLOTS, op},
};
use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE},
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_sk_fullsock, bpf_sk_storage_get, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::SkBuffContext,
};

use crate::{
    atomic,
    judge::{Court, Judgement, Windows, bit},
    judge_net::{Endpoint, Place},
    kernel::{Address, at_most, field, kernel_loops, read_field, repeat},
    maps::{ASKERS, LEARNED, NAMES},
    record::{Record, count_loss},
    session::{Member, Task, control_word, zero},
};

/// Where name servers answer.
const PORT: u16 = 53;
const SOCK_DGRAM: u16 = 2;
const IPPROTO_UDP: u32 = 17;
const IPV6_HEADER: u32 = 40;
const UDP_HEADER: u32 = 8;
/// The packet goes on.
const PASS: i32 = 1;
/// It does not.
const DROP: i32 = 0;
const GRACE_NS: u64 = NAME_GRACE_S * 1_000_000_000;

/// Marks the socket by which a session asks a name server: `address` is where it connects or sends to.
///
/// `socket` is a `struct socket` that the verifier knows the type of.
#[inline(always)]
pub fn mark(member: &Member, socket: Task, kind: u16, address: Address) {
    if kind != SOCK_DGRAM || u16::from_be(read_field(address, 2)) != PORT {
        return;
    }
    // SAFETY: a typed argument (see `field!`).
    let sk = unsafe { field!(socket, socket_sk, Task) };
    if sk.is_null() {
        return;
    }
    let mut asker = Asker { session: member.session, agent: member.agent, pad: 0 };
    // SAFETY: a typed socket, and a value of the map's size.
    let kept = unsafe {
        let value = (&raw mut asker).cast();
        bpf_sk_storage_get(ASKERS_PTR!(), sk.cast_mut().cast(), value, BPF_SK_STORAGE_GET_F_CREATE.into())
    };
    if kept.is_null() {
        count_loss(member.session, RecordKind::NetConnect, LossReason::AnswerUnread);
        return;
    }
    let kept = kept.cast::<Asker>();
    // SAFETY: a valid value of the map. It may be that of another session, which had the socket before.
    unsafe {
        (&raw mut (*kept).session).write_volatile(member.session);
        (&raw mut (*kept).agent).write_volatile(member.agent);
    }
}

/// The map as helpers want it.
macro_rules! ASKERS_PTR {
    () => {
        (&raw const ASKERS).cast_mut().cast::<core::ffi::c_void>()
    };
}
use ASKERS_PTR;

/// `include/linux/bpf-cgroup.h`, `BPF_CGROUP_RUN_PROG_INET_INGRESS()`, since 4.10: `struct __sk_buff`, from the header of
/// IP on. For a datagram it is called by `udp_queue_rcv_one_skb()`, before the datagram is in the socket's queue.
#[cgroup_skb(ingress)]
pub fn name_answer(ctx: SkBuffContext) -> i32 {
    // Without loops that the kernel runs nobody is judged, and reading would be followed turn by turn.
    if kernel_loops()
        && control_word(control::LEARNS) != 0
        && let Some(asker) = asker(&ctx)
        && let Some(begin) = message(&ctx)
    {
        return read(&ctx, &asker, begin);
    }
    PASS
}

/// Who asked by the socket which the packet is for.
#[inline(always)]
fn asker(ctx: &SkBuffContext) -> Option<Member> {
    // SAFETY: the context, and a socket of which the verifier knows that it may be none.
    unsafe {
        let sk = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let sk = bpf_sk_fullsock(sk);
        if sk.is_null() || (&raw const (*sk).protocol).read_volatile() != IPPROTO_UDP {
            return None;
        }
        let kept = bpf_sk_storage_get(ASKERS_PTR!(), sk.cast(), core::ptr::null_mut(), 0).cast::<Asker>();
        if kept.is_null() {
            return None;
        }
        let (session, agent) =
            ((&raw const (*kept).session).read_volatile(), (&raw const (*kept).agent).read_volatile());
        Some(Member { session, start_ns: 0, pid: 0, tid: 0, agent, flags: 0, task: core::ptr::null() })
    }
}

/// Where the message begins in a packet of UDP that comes from a name server.
#[inline(always)]
fn message(ctx: &SkBuffContext) -> Option<u32> {
    let [first] = load::<1>(ctx, 0)?;
    let begin = match first >> 4 {
        4 => u32::from(first & 0xf) * 4,
        6 => {
            let [next] = load::<1>(ctx, 6)?;
            if u32::from(next) != IPPROTO_UDP {
                return None;
            }
            IPV6_HEADER
        }
        _ => return None,
    };
    if u16::from_be_bytes(load(ctx, begin)?) == PORT { Some(begin + UDP_HEADER) } else { None }
}

#[inline(always)]
fn load<const N: usize>(ctx: &SkBuffContext, at: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the helper writes as many bytes as there are, or fails.
    let status = unsafe {
        bpf_skb_load_bytes(ctx.skb.skb.cast_const().cast(), at, bytes.as_mut_ptr().cast(), N as u32)
    };
    if status == 0 { Some(bytes) } else { None }
}

/// An answer that is being read.
struct Reading {
    answer: *mut Answer,
    session: u64,
    /// Where rules are looked for that are about connections of the asker.
    place: Place,
    /// 1 where reading came to the end, 2 where it could not.
    end: u32,
    /// 1 where a rule refuses the asker something of a name in it.
    concerns: u32,
    /// 1 where an address found no room.
    is_full: u32,
}

/// Reads an answer, in a buffer as records are built in. Gives whether it goes on.
#[inline(always)]
fn read(ctx: &SkBuffContext, asker: &Member, begin: u32) -> i32 {
    const { assert!(size_of::<Answer>() <= TAIL_BYTES) };
    let court = Court::of(asker, bit(op::CONNECT));
    let Some(record) = Record::take::<[u64; 1]>(asker, RecordKind::NetConnect) else {
        return if Court::unseen(&court) == 0 { PASS } else { DROP };
    };
    let unread = match take(ctx, &record, begin) {
        Some(whole) => read_all(&record, asker, &court, whole),
        None => false,
    };
    record.release();
    match court {
        Some(court) if unread && court.undecided().refuses() => DROP,
        _ => PASS,
    }
}

/// Copies a message; gives how long it is, where it is an answer.
#[inline(always)]
fn take(ctx: &SkBuffContext, record: &Record, begin: u32) -> Option<u32> {
    let answer = record.tail().cast::<Answer>();
    let whole = ctx.skb.len().wrapping_sub(begin);
    // In this form the verifier sees that it is not 0; where nothing is there, nothing is read.
    let len = 1 + at_most(whole.wrapping_sub(1).into(), u64::from(ANSWER_BYTES) - 1) as u32;
    // SAFETY: at most as many bytes as the message has room for, in a buffer that is this program's.
    let status = unsafe {
        let to = (&raw mut (*answer).message).cast();
        bpf_skb_load_bytes(ctx.skb.skb.cast_const().cast(), begin, to, len)
    };
    // SAFETY: integers, for which all bytes are values; nobody else uses the buffer.
    if status == 0 && unsafe { (*answer).begin(len) } { Some(whole) } else { None }
}

/// Reads an answer to its end, and learns from it. Gives whether something is not learned that a rule refuses the asker.
#[inline(always)]
fn read_all(record: &Record, asker: &Member, court: &Option<Court>, whole: u32) -> bool {
    let answer = record.tail().cast::<Answer>();
    let session = asker.session;
    let nowhere = Endpoint { family: 4, address: [0; 16], port: 0, protocol: 0 };
    let place = match court {
        Some(court) => Place::new(court, &nowhere, 0),
        None => Place::of_nobody(control_word(control::POLICY) as u32 & (SLOTS - 1)),
    };
    let mut reading = Reading { answer, session, place, end: zero(), concerns: zero(), is_full: zero() };
    repeat(ANSWER_STEPS, read_on, &mut reading);
    // SAFETY: as in `take`.
    let lacks_some = unsafe { (*answer).lacks_some(reading.end == 1 && whole <= ANSWER_BYTES) };
    if lacks_some {
        count_loss(session, RecordKind::NetConnect, LossReason::AnswerUnread);
    }
    reading.concerns != 0 && (lacks_some || reading.is_full != 0)
}

/// One step.
#[inline(never)]
extern "C" fn read_on(_index: u32, reading: &mut Reading) -> i64 {
    // SAFETY: as in `take`.
    let answer = unsafe { &mut *reading.answer };
    match answer.step() {
        Step::More => {}
        Step::Name => {
            let key = NameKey { name: answer.candidate, slot: reading.place.slot, pad: 0 };
            // SAFETY: entries are only read here; one that is replaced meanwhile belongs to another policy.
            if let Some(set) = unsafe { NAMES.get(key) } {
                answer.is_known();
                if reading.place.has_rules(*set) {
                    reading.concerns = 1;
                }
            }
        }
        Step::Address => {
            if !learn(reading.session, answer) {
                reading.is_full = 1;
            }
        }
        Step::End => {
            reading.end = 1;
            return 1;
        }
        Step::Broken => {
            reading.end = 2;
            return 1;
        }
    }
    0
}

/// Keeps an address of the message for its session. Gives whether there was room.
#[inline(always)]
fn learn(session: u64, answer: &Answer) -> bool {
    let (family, address) = (answer.family as u8, answer.address);
    let key = key_of(session, &Endpoint { family, address, port: 0, protocol: 0 });
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    if LEARNED.get_ptr(key).is_none() {
        let _ = LEARNED.insert(key, Learned { seen_ns: now_ns, names: [0; _] }, BPF_NOEXIST.into());
    }
    let Some(entry) = LEARNED.get_ptr_mut(key) else {
        count_loss(session, RecordKind::NetConnect, LossReason::LearnedTableFull);
        return false;
    };
    // SAFETY: a valid value of the map, of aligned words.
    unsafe {
        if now_ns.wrapping_sub((&raw const (*entry).seen_ns).read_volatile()) > GRACE_NS {
            // What it stood for then is over.
            (&raw mut (*entry).names).write_volatile([0; _]);
        }
        (&raw mut (*entry).seen_ns).write_volatile(now_ns);
    }
    let [asked, owner] = answer.names();
    add(entry, asked);
    if owner != asked {
        add(entry, owner);
    }
    true
}

/// Adds a name to an address. What another CPU adds at the same time is kept too: what is displaced moves on.
#[inline(always)]
fn add(entry: *mut Learned, name: u64) {
    // SAFETY: a valid value of the map, of aligned words.
    let words = unsafe { (&raw mut (*entry).names).cast::<u64>() };
    let mut name = name;
    for index in 0..LEARNED_NAMES as usize {
        // SAFETY: as above, within the array.
        if unsafe { words.add(index).read_volatile() } == name {
            return;
        }
    }
    for index in 0..LEARNED_NAMES as usize {
        if name == 0 {
            return;
        }
        // SAFETY: as above.
        name = unsafe { atomic::swap(words.add(index), name) };
    }
    if name != 0 {
        // SAFETY: as above, the last one.
        unsafe { words.add(LEARNED_NAMES as usize).write_volatile(NAME_UNDECIDED) };
    }
}

/// By what is kept what a session is told of the address that it really reaches.
#[inline(always)]
fn key_of(session: u64, endpoint: &Endpoint) -> LearnedKey {
    let key = endpoint.canonical(true);
    LearnedKey { session, address: key.address, family: key.family.into(), pad: 0 }
}

impl Court {
    /// What is decided about an attempt to reach an address by the names that the session was told it has: nothing where it
    /// was told none. It only makes stricter what is decided otherwise.
    #[inline(never)]
    pub fn on_told(&self, record: &Record, session: u64, endpoint: &Endpoint) -> Judgement {
        let Some(entry) = LEARNED.get_ptr_mut(key_of(session, endpoint)) else { return Judgement::NONE };
        // SAFETY: a valid value of the map; a helper without arguments.
        let age_ns =
            unsafe { bpf_ktime_get_boot_ns().wrapping_sub((&raw const (*entry).seen_ns).read_volatile()) };
        if age_ns > GRACE_NS {
            return Judgement::NONE;
        }
        let place = Place::new(self, endpoint, 0);
        let windows = Windows::new(place.slot);
        let mut told = Told { record, entry, place, windows, rule: zero(), verdict: zero() };
        repeat(LEARNED_NAMES + 1, look_at_name, &mut told);
        if told.verdict == 0 {
            return Judgement::NONE;
        }
        self.judgement(told.rule as u16, told.verdict as u8)
    }
}

/// What the names of an address say, as far as they were looked at.
struct Told<'a> {
    record: &'a Record,
    entry: *mut Learned,
    place: Place,
    windows: Windows,
    rule: u32,
    verdict: u32,
}

/// One name.
#[inline(never)]
extern "C" fn look_at_name(index: u32, told: &mut Told) -> i64 {
    if index > LEARNED_NAMES {
        return 1;
    }
    // SAFETY: a valid value of the map, within its array.
    let name = unsafe { (&raw const (*told.entry).names).cast::<u64>().add(index as usize).read_volatile() };
    if name == 0 {
        return 0;
    }
    // SAFETY: entries are only read here; one that is replaced meanwhile belongs to another policy.
    let Some(set) = (unsafe { NAMES.get(NameKey { name, slot: told.place.slot, pad: 0 }) }) else { return 0 };
    let found = told.place.look(told.record, *set, &mut told.windows);
    let (rule, verdict) = (u32::from(found.rule), u32::from(found.verdict));
    // Of equally strict rules the one that comes first in the policy is named.
    if verdict > told.verdict || verdict == told.verdict && rule < told.rule {
        (told.rule, told.verdict) = (rule, verdict);
    }
    0
}
