//! Texts that run through the automaton of the rules, or of a binding: see [`agentwatch_common::rules::RuleAutomaton`].

use agentwatch_common::{
    bound::{BOUND_STATES, BOUND_STEPS, Binding},
    limits::{
        MATCH_COMMAND_BYTES, NAME_BYTES, PATH_COMPONENTS, RULE_PATH_BYTES, RULE_STATES, RULE_STEPS,
        TAIL_BYTES,
    },
    rules::{RuleAutomaton, RuleState, RuleStates, RuleStep, RuleSteps, SOCKET_TEXT_BYTES},
};

use crate::{
    kernel::repeat,
    maps,
    path::{self, Walk},
    record::Record,
    session::zero,
};

/// Bytes of a name that one turn of the loop reads: the kernel's call for each turn costs as much as three of them.
const CHUNK: usize = 8;
/// Turns for a path of [`RULE_PATH_BYTES`]: of each name the last chunk need not be full.
const PATH_TURNS: u32 = RULE_PATH_BYTES / CHUNK as u32 + PATH_COMPONENTS;

/// Where the tables of an automaton lie. All of it is valid map values.
pub trait Tables: Copy {
    /// States that it has room for: a power of two.
    const STATES: u32;
    /// Steps that it has room for: a power of two.
    const STEPS: u32;
    /// How it reads.
    fn head(self) -> *const RuleAutomaton;
    /// Its states.
    fn states(self) -> *const RuleState;
    /// The steps of all states.
    fn steps(self) -> *const RuleStep;
}

/// An automaton.
#[derive(Clone, Copy)]
pub struct Automaton<T>(T);

/// The tables of a policy.
#[derive(Clone, Copy)]
pub struct PolicyTables {
    head: *const RuleAutomaton,
    states: *const RuleStates,
    steps: *const RuleSteps,
}

impl Tables for PolicyTables {
    const STATES: u32 = RULE_STATES;
    const STEPS: u32 = RULE_STEPS;

    #[inline(always)]
    fn head(self) -> *const RuleAutomaton {
        self.head
    }

    #[inline(always)]
    fn states(self) -> *const RuleState {
        self.states.cast()
    }

    #[inline(always)]
    fn steps(self) -> *const RuleStep {
        self.steps.cast()
    }
}

/// The tables of a binding: one pointer, as the stack of those who ask it has little room.
#[derive(Clone, Copy)]
pub struct BindingTables(*const Binding);

impl Tables for BindingTables {
    const STATES: u32 = BOUND_STATES;
    const STEPS: u32 = BOUND_STEPS;

    #[inline(always)]
    fn head(self) -> *const RuleAutomaton {
        // SAFETY: only an address is made; the same below.
        unsafe { &raw const (*self.0).head }
    }

    #[inline(always)]
    fn states(self) -> *const RuleState {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).states).cast() }
    }

    #[inline(always)]
    fn steps(self) -> *const RuleStep {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).steps).cast() }
    }
}

/// That of a policy.
pub type OfPolicy = Automaton<PolicyTables>;
/// That of a binding.
pub type OfBinding = Automaton<BindingTables>;

impl OfPolicy {
    /// That of a slot.
    #[inline(always)]
    pub fn of(slot: u32) -> Option<Self> {
        Some(Self(PolicyTables {
            head: maps::RULES.get_ptr(slot)?,
            states: maps::RULE_STATES.get_ptr(slot)?,
            steps: maps::RULE_STEPS.get_ptr(slot)?,
        }))
    }
}

impl OfBinding {
    /// That of a binding, which is a valid map value.
    #[inline(always)]
    pub fn of(binding: *const Binding) -> Self {
        Self(BindingTables(binding))
    }
}

impl<T: Tables> Automaton<T> {
    /// The state behind another one and a byte.
    #[inline(always)]
    pub fn next(&self, state: u32, byte: u8) -> u32 {
        // SAFETY: valid map values; indices are masked to their arrays, and volatile reads keep the masks.
        unsafe {
            let class = (&raw const (*self.0.head()).class).cast::<u8>().add(byte as usize).read_volatile();
            let here = self.state(state);
            let at = (&raw const (*here).base).read_volatile().wrapping_add(u32::from(class));
            let step = self.0.steps().add((at & (T::STEPS - 1)) as usize);
            if (&raw const (*step).owner).read_volatile() == state {
                (&raw const (*step).next).read_volatile()
            } else {
                (&raw const (*here).default).read_volatile()
            }
        }
    }

    /// The set of patterns that cover a text that ends here.
    #[inline(always)]
    pub fn set(&self, state: u32) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.state(state)).accept).read_volatile() }
    }

    /// Where a state lies.
    #[inline(always)]
    fn state(&self, state: u32) -> *const RuleState {
        // SAFETY: as above.
        unsafe { self.0.states().add((state & (T::STATES - 1)) as usize) }
    }

    /// Where paths begin: those of the initial namespace, or others.
    #[inline(always)]
    pub fn start_path(&self, elsewhere: bool) -> u32 {
        // SAFETY: valid map values.
        unsafe {
            if elsewhere {
                (&raw const (*self.0.head()).start_path).read_volatile()
            } else {
                (&raw const (*self.0.head()).start_known).read_volatile()
            }
        }
    }

    /// The state in which the path ends that was walked last, if it begins in another one; nothing where it was not
    /// found whole, or is too long.
    #[inline(always)]
    pub fn read_path(self, record: &Record, state: u32) -> Option<u32> {
        if !path::is_whole(record.walk()) {
            return None;
        }
        let names = path::names(record.walk());
        // What was never in a folder, as a file in memory, can have a slash in its one name.
        let skips = u32::from(names != 1);
        path::set_reading(record.walk(), path::Reading { names, at: 0, begun: 0 });
        let mut reading = PathReading {
            automaton: self,
            tail: record.tail(),
            walk: record.walk(),
            state,
            skips,
            finished: zero(),
        };
        repeat(PATH_TURNS, path_chunk, &mut reading);
        if reading.finished == 0 { None } else { Some(reading.state) }
    }

    /// The set of patterns that cover a command line: `len` bytes of `count` arguments at the beginning of the tail, and
    /// behind [`MATCH_COMMAND_BYTES`] the program's name. Gives also how many bytes the arguments have.
    #[inline(always)]
    pub fn read_command(self, record: &Record, len: u64, count: u32) -> (u32, u64) {
        // SAFETY: a valid map value.
        let state = unsafe { (&raw const (*self.0.head()).start_command).read_volatile() };
        let mut reading = CommandReading {
            automaton: self,
            // SAFETY: inside the tail.
            text: unsafe { record.tail().add(MATCH_COMMAND_BYTES as usize) },
            len,
            state,
            left: count,
            behind_first: zero(),
            end: zero(),
        };
        repeat(NAME_BYTES as u32, name_byte, &mut reading);
        reading.text = record.tail();
        repeat(MATCH_COMMAND_BYTES, argument_byte, &mut reading);
        let end = if reading.end == 0 { len } else { reading.end.into() };
        (self.set(reading.state), end)
    }

    /// The set of patterns that cover a socket without a path: `len` bytes of text at the beginning of the tail.
    #[inline(always)]
    pub fn read_socket(self, record: &Record, len: u32) -> u32 {
        // SAFETY: a valid map value.
        let state = unsafe { (&raw const (*self.0.head()).start_socket).read_volatile() };
        let mut reading = SocketReading { automaton: self, text: record.tail(), len, state };
        repeat(SOCKET_TEXT_BYTES, socket_byte, &mut reading);
        self.set(reading.state)
    }
}

/// The text of a socket that is being read.
struct SocketReading<T> {
    automaton: Automaton<T>,
    text: *mut u8,
    len: u32,
    state: u32,
}

/// The next byte of it.
#[inline(never)]
extern "C" fn socket_byte<T: Tables>(index: u32, reading: &mut SocketReading<T>) -> i64 {
    if index >= reading.len {
        return 1;
    }
    // SAFETY: masked to the tail; the verifier checks it.
    let byte = unsafe { reading.text.add((index & (NAME_BYTES as u32 - 1)) as usize).read_volatile() };
    reading.state = reading.automaton.next(reading.state, byte);
    0
}
const _: () = assert!(NAME_BYTES.is_power_of_two() && SOCKET_TEXT_BYTES <= NAME_BYTES as u32);

/// A path that is being read.
struct PathReading<T> {
    automaton: Automaton<T>,
    tail: *mut u8,
    walk: *mut Walk,
    state: u32,
    /// 1 where names have no slash: a settled state is not left before their end.
    skips: u32,
    finished: u32,
}

/// The next bytes of a path, from the root down. The walk left the names in the other order.
#[inline(never)]
extern "C" fn path_chunk<T: Tables>(_index: u32, reading: &mut PathReading<T>) -> i64 {
    let mut state = reading.state;
    let path::Reading { mut names, mut at, begun } = path::reading(reading.walk);
    if state == RuleAutomaton::DEAD || begun == 0 && names == 0 {
        reading.finished = 1;
        return 1;
    }
    if begun == 0 {
        names -= 1;
        at = path::name_at(reading.walk, names).into();
        state = reading.automaton.next(state, b'/');
    }
    // SAFETY: masked to the tail, behind which there is room for a name; the verifier checks it.
    let text = unsafe { reading.tail.add(at as usize & (TAIL_BYTES - 1)) };
    let mut more = 1;
    for number in 0..CHUNK {
        // SAFETY: as above.
        let byte = unsafe { text.add(number).read_volatile() };
        let is_over = byte == 0 || state & RuleAutomaton::SETTLED != 0 && reading.skips != 0;
        if is_over {
            more = 0;
            break;
        }
        state = reading.automaton.next(state, byte);
    }
    reading.state = state;
    path::set_reading(reading.walk, path::Reading { names, at: at + CHUNK as u64, begun: more });
    0
}

/// A command line that is being read.
struct CommandReading<T> {
    automaton: Automaton<T>,
    text: *mut u8,
    /// Bytes of arguments.
    len: u64,
    state: u32,
    /// Arguments that have not ended.
    left: u32,
    /// 1 when the first argument has ended.
    behind_first: u32,
    /// Bytes of all arguments, once their end was seen.
    end: u32,
}

/// The next byte of a program's name.
#[inline(never)]
extern "C" fn name_byte<T: Tables>(index: u32, reading: &mut CommandReading<T>) -> i64 {
    // SAFETY: masked to the buffer; the verifier checks it.
    let byte = unsafe { reading.text.add(index as usize & (NAME_BYTES - 1)).read_volatile() };
    if byte == 0 {
        return 1;
    }
    reading.state = reading.automaton.next(reading.state, byte);
    0
}

/// The next byte of the arguments, without the first: see [`crate::automaton::Matching::read_arguments`].
#[inline(never)]
extern "C" fn argument_byte<T: Tables>(index: u32, reading: &mut CommandReading<T>) -> i64 {
    if u64::from(index) >= reading.len {
        return 1;
    }
    // SAFETY: masked to the tail; the verifier checks it.
    let byte = unsafe { reading.text.add((index & (MATCH_COMMAND_BYTES - 1)) as usize).read_volatile() };
    reading.left = reading.left.wrapping_sub(u32::from(byte == 0));
    if reading.left == 0 {
        reading.end = index + 1;
        return 1;
    }
    reading.behind_first |= u32::from(byte == 0);
    if reading.behind_first != 0 {
        reading.state = reading.automaton.next(reading.state, if byte == 0 { b' ' } else { byte });
    }
    0
}
