//! What the policy says of an operation, from tables alone: see [`agentwatch_common::rules`].

use core::ptr::NonNull;

use agentwatch_common::{
    maps::control,
    rules::{
        self, Choice, Decision, DecisionKey, DeviceKey, LinkedKey, RULE_DEFAULT, RULE_GUARDS, RULE_NONE,
        RULE_UNDECIDED, Verdict, View, ViewKey, op,
    },
};
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_send_signal};

use crate::{
    kernel::{kernel_loops, repeat},
    maps::{DECISIONS, DEVICES, LINKED, VIEWS, WINDOWS},
    place::Place,
    record::Record,
    rule_text::OfPolicy,
    session::{Member, control_word, zero},
};

/// Ends a process at its next return to user space.
pub const SIGKILL: u32 = 9;
/// What a refused call returns.
const EPERM: i32 = 1;

/// In the place of a set: there is no second name.
pub const ONE_NAME: u32 = u32::MAX;

/// What was decided.
#[derive(Clone, Copy)]
pub struct Judgement {
    /// Version of the policy; 0 where it had nothing to say.
    pub policy: u32,
    /// See [`agentwatch_common::record::RecordHeader::rule`].
    pub rule: u16,
    /// See [`agentwatch_common::record::RecordHeader::verdict`].
    pub verdict: u8,
}

impl Judgement {
    /// Nobody had anything to say.
    pub const NONE: Self = Self { policy: 0, rule: RULE_NONE, verdict: 0 };

    /// Whether the operation is refused.
    #[inline(always)]
    pub fn refuses(&self) -> bool {
        self.verdict >= Verdict::Held.raw()
    }

    /// Whether it is told even where it is no event by itself.
    #[inline(always)]
    pub fn is_remarkable(&self) -> bool {
        self.verdict >= Verdict::WouldDeny.raw()
    }

    /// The stricter of two. What nothing was said about counts as well: that it was judged, and by which policy.
    #[inline(always)]
    pub fn or_stricter(self, other: Self) -> Self {
        if other.verdict > self.verdict || self.policy == 0 { other } else { self }
    }

    /// Carries it out: what the hook returns.
    #[inline(always)]
    pub fn carry_out(&self) -> i32 {
        if self.verdict == Verdict::Killed.raw() {
            // SAFETY: a helper that takes a number.
            unsafe { bpf_send_signal(SIGKILL) };
        }
        // One less than 0 or 1: in this form the verifier sees, on every kernel, that nothing else is returned than 0
        // and -EPERM.
        const { assert!(EPERM == 1) };
        (core::hint::black_box(u32::from(!self.refuses())) & 1) as i32 - EPERM
    }
}

/// The policy in force, for one agent: its view, where it lies in the table. A pointer and no copy, since the compiler
/// leaves the copy that nobody has without a value, which the verifier refuses to see moved.
#[derive(Clone, Copy)]
pub struct Court(NonNull<View>);

/// Reads a field of the view.
macro_rules! view {
    ($court:expr, $field:ident) => {{
        // SAFETY: a valid map value. One that is replaced meanwhile belongs to another policy.
        unsafe { (&raw const (*$court.0.as_ptr()).$field).read_volatile() }
    }};
}

/// Words of a view.
pub const VIEW_WORDS: usize = size_of::<View>() / size_of::<u64>();
const _: () = assert!(VIEW_WORDS * size_of::<u64>() == size_of::<View>());

/// Operations that are asked about, as bits.
pub type Ops = u32;

/// One operation as a bit.
pub const fn bit(op: u32) -> Ops {
    1 << op
}

impl Court {
    /// By a view that was copied to where it is kept: see [`Self::words`].
    #[inline(always)]
    pub fn by(view: NonNull<[u64; VIEW_WORDS]>) -> Self {
        Self(view.cast())
    }

    /// The view, to be copied.
    #[inline(always)]
    pub fn words(&self) -> *const [u64; VIEW_WORDS] {
        self.0.as_ptr().cast_const().cast()
    }

    /// Who judges these operations of a process; nobody where nothing is said about them.
    #[inline(always)]
    pub fn of(member: &Member, ops: Ops) -> Option<Self> {
        let court = Self::in_force(member)?;
        if u32::from(view!(court, ops)) & ops == 0 { None } else { Some(court) }
    }

    /// Who judges a process, if anybody.
    #[inline(always)]
    fn in_force(member: &Member) -> Option<Self> {
        Self::in_force_for(member.agent)
    }

    /// Who judges by this number, if anybody.
    #[inline(always)]
    fn in_force_for(agent: u32) -> Option<Self> {
        let word = if kernel_loops() { control_word(control::POLICY) } else { 0 };
        if word == 0 {
            return None;
        }
        let slot = word as u32 & (rules::SLOTS - 1);
        NonNull::new(VIEWS.get_ptr_mut(ViewKey { agent, slot })?).map(Self)
    }

    /// What a guard decides (one of [`rules::guard`]): nothing where it is off.
    #[inline(always)]
    pub fn by_guard(member: &Member, guard: u32) -> Judgement {
        match Self::in_force(member) {
            Some(court) if u32::from(view!(court, guards)) & bit(guard) != 0 => {
                court.judgement(RULE_GUARDS + guard as u16, Verdict::Denied.raw())
            }
            _ => Judgement::NONE,
        }
    }

    /// What a hook returns where no buffer was free, the loss of which is counted: what cannot be looked at is refused
    /// where there are rules about it.
    #[inline(always)]
    pub fn unseen(court: &Option<Self>) -> i32 {
        match court {
            Some(court) => court.undecided().carry_out(),
            None => 0,
        }
    }

    /// Whether what is refused to a process is only told, by the number by which it is judged.
    #[inline(always)]
    pub fn only_tells(agent: u32) -> bool {
        Self::in_force_for(agent).is_some_and(|court| view!(court, enforce) == 0)
    }

    /// What is decided about a process that cannot be followed: a refusal where its maker's rules are enforced, else
    /// nothing.
    #[inline(always)]
    pub fn on_unfollowed(member: &Member) -> Option<Judgement> {
        let court = Self::in_force(member)?;
        if view!(court, enforce) == 0 { None } else { Some(court.undecided()) }
    }

    /// What is decided where something cannot be: a refusal, where rules are enforced.
    #[inline(always)]
    pub fn undecided(&self) -> Judgement {
        self.judgement(RULE_UNDECIDED, Verdict::Denied.raw())
    }

    /// Where the path of a place in a file system begins that the initial namespace knows; nothing where that shows it
    /// nowhere, or by the path that the process sees.
    #[inline(always)]
    pub fn other_start(&self, dev: u32, place: Place, elsewhere: bool) -> Option<u32> {
        // SAFETY: entries are only read here; one that is replaced meanwhile belongs to another policy.
        let device = unsafe { DEVICES.get(DeviceKey { dev, slot: self.slot() }) }?;
        if !elsewhere && device.mount == place.mount_id() { None } else { Some(device.start) }
    }

    /// Judges operations on a file with several names by what rules refuse of those.
    #[inline(always)]
    pub fn on_other_names(&self, place: Place, ops: Ops) -> Judgement {
        let key = LinkedKey { ino: place.ino(), dev: place.dev(), slot: self.slot() };
        // SAFETY: entries are only read here; one that is replaced meanwhile belongs to another policy.
        match unsafe { LINKED.get(key) } {
            Some(set) => self.on_rules(*set, ops),
            None => Judgement::NONE,
        }
    }

    /// Judges operations on what a set of patterns covers, by rules alone. A subprogram, so that the code is not repeated.
    #[inline(never)]
    fn on_rules(&self, set: u32, ops: Ops) -> Judgement {
        self.on_set(set, 0, ops)
    }

    /// Judges the move of a folder by the paths that were kept before and after it: what is below it must be covered
    /// there as it is here. What is decided is noted in the record.
    #[inline(always)]
    pub fn on_move(&self, record: &Record, from: [u32; 2], to: [u32; 2]) {
        self.on_move_of(*record, from[0], to[0]);
        self.on_move_of(*record, from[1], to[1]);
    }

    /// The same by the states in which one path ended before and after. A subprogram that gives nothing back: what comes
    /// behind it the verifier follows once, and not for each way through it.
    #[inline(never)]
    fn on_move_of(self, record: Record, from: u32, to: u32) {
        let Some(automaton) = OfPolicy::of(self.slot()) else { return record.decide(&self.undecided()) };
        if automaton.next(from, b'/') != automaton.next(to, b'/') {
            record.decide(&self.on_set(automaton.set(from), 0, bit(op::MOVE_ABOVE)));
        }
    }

    /// Judges a command line: `len` bytes of `count` arguments at the beginning of the tail, and behind
    /// `MATCH_COMMAND_BYTES` the program's name. Gives also how many bytes the arguments have, as far as they were read.
    #[inline(always)]
    pub fn on_command(&self, record: &Record, len: u64, count: u32) -> (Judgement, u64) {
        let Some(automaton) = OfPolicy::of(self.slot()) else { return (self.undecided(), 0) };
        let (set, end) = automaton.read_command(record, len, count);
        (self.on_set(set, bit(op::RUN), 0), end)
    }

    /// Judges operations on a socket without a path, by a text of `len` bytes at the beginning of the tail.
    #[inline(never)]
    pub fn on_socket(&self, record: &Record, len: u32, ops: Ops) -> Judgement {
        let Some(automaton) = OfPolicy::of(self.slot()) else { return self.undecided() };
        self.on_set(automaton.read_socket(record, len), ops, 0)
    }

    /// Judges operations on what a set of patterns covers. For those in `explicit` the default does not count.
    #[inline(always)]
    pub fn on_set(&self, set: u32, ops: Ops, explicit: Ops) -> Judgement {
        self.on_sets([set, ONE_NAME], ops, explicit)
    }

    /// Judges operations on what sets of patterns cover: one for each name of it.
    #[inline(always)]
    pub fn on_sets(&self, sets: [u32; 2], ops: Ops, explicit: Ops) -> Judgement {
        let asked = ops | explicit;
        // Most paths are covered by no pattern. What is decided then is known without a look-up, mostly: nothing.
        let is_bare = sets[0] == 0 && (sets[1] == 0 || sets[1] == ONE_NAME);
        let asked = if is_bare { asked & u32::from(view!(self, bare)) } else { asked };
        if asked == 0 {
            return self.judgement(RULE_NONE, 0);
        }
        let key = DecisionKey { set: sets[0], view: view!(self, view), op: 0, slot: self.slot() as u8 };
        let mut deciding = Deciding {
            key,
            sets,
            ops,
            left: asked.wrapping_add(zero()),
            rule: zero(),
            verdict: zero(),
            windows: Windows::new(self.slot()),
        };
        repeat(op::COUNT, decide_op, &mut deciding);
        self.judgement(deciding.rule as u16, deciding.verdict as u8)
    }

    /// Which half of the tables.
    #[inline(always)]
    pub fn slot(&self) -> u32 {
        view!(self, slot)
    }

    /// The number of the agent's view.
    #[inline(always)]
    pub fn view_number(&self) -> u32 {
        view!(self, view).into()
    }

    /// A verdict as the agent's mode has it.
    #[inline(always)]
    pub fn judgement(&self, rule: u16, verdict: u8) -> Judgement {
        let told_only = view!(self, enforce) == 0 && verdict > Verdict::WouldDeny.raw();
        Judgement {
            policy: view!(self, policy),
            rule,
            verdict: if told_only { Verdict::WouldDeny.raw() } else { verdict },
        }
    }
}

/// A decision in progress, over several operations.
struct Deciding {
    key: DecisionKey,
    sets: [u32; 2],
    /// For which the default counts.
    ops: Ops,
    /// Those that are still to be looked at.
    left: Ops,
    rule: u32,
    verdict: u32,
    windows: Windows,
}

/// The next operation: the strictest counts.
#[inline(never)]
extern "C" fn decide_op(_index: u32, deciding: &mut Deciding) -> i64 {
    if deciding.left == 0 {
        return 1;
    }
    let asked = deciding.left & deciding.left.wrapping_neg();
    deciding.left &= !asked;
    deciding.key.op = number(asked) as u8;
    let mut choice = deciding.choice(deciding.sets[0]);
    if deciding.sets[1] != ONE_NAME {
        let other = deciding.choice(deciding.sets[1]);
        // Rules by either name come before the default.
        let is_rule = other.verdict != 0 && other.rule != RULE_DEFAULT;
        if is_rule && (choice.rule == RULE_DEFAULT || other.verdict > choice.verdict) {
            choice = other;
        }
    }
    let applies = choice.rule != RULE_DEFAULT || deciding.ops & asked != 0;
    if applies && u32::from(choice.verdict) > deciding.verdict {
        deciding.verdict = choice.verdict.into();
        deciding.rule = choice.rule.into();
    }
    // Where none is left the next turn would end it; not to call for it is cheaper.
    i64::from(deciding.left == 0)
}

/// Which operation a bit stands for.
#[inline(always)]
const fn number(bit: Ops) -> u32 {
    const { assert!(op::COUNT <= 8) };
    (bit & 0b1111_0000 != 0) as u32 * 4
        + (bit & 0b1100_1100 != 0) as u32 * 2
        + (bit & 0b1010_1010 != 0) as u32
}

impl Deciding {
    /// What counts for a set, of the operation of the key.
    #[inline(always)]
    fn choice(&mut self, set: u32) -> Choice {
        self.key.set = set;
        // SAFETY: entries are only read here; one that is replaced meanwhile belongs to another policy.
        match unsafe { DECISIONS.get(self.key) } {
            Some(decision) => self.windows.choose(decision),
            None => Choice { rule: RULE_NONE, verdict: 0, window: 0 },
        }
    }
}

/// The times at which choices count. The clock is read once.
pub struct Windows {
    slot: u32,
    now_ns: u64,
}

impl Windows {
    /// Those of the policy in a half of the tables.
    #[inline(always)]
    pub fn new(slot: u32) -> Self {
        Self { slot, now_ns: zero().into() }
    }

    /// The first choice that counts at this moment; an empty one where none does.
    #[inline(always)]
    pub fn choose(&mut self, decision: &Decision) -> Choice {
        for choice in &decision.choices {
            if choice.verdict == 0 || self.is_open(choice) {
                return *choice;
            }
        }
        Choice { rule: RULE_NONE, verdict: 0, window: 0 }
    }

    #[inline(always)]
    fn is_open(&mut self, choice: &Choice) -> bool {
        if choice.window == 0 {
            return true;
        }
        if self.now_ns == 0 {
            // SAFETY: a helper without arguments.
            let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
            self.now_ns = boot_ns.wrapping_add(control_word(control::UNIX_OFFSET_NS));
        }
        let Some(time) = WINDOWS.get(self.slot * rules::WINDOWS + u32::from(choice.window) - 1) else {
            return true;
        };
        time.from_ns <= self.now_ns && self.now_ns < time.to_ns
    }
}
