//! Answers of name servers, read step by step: RFC 1035.
//!
//! The kernel runs [`Answer::step`] by `bpf_loop`, whose bound is what one message can cost; tests of the daemon run the
//! same code. All that changes lies in the structure, and whatever the bytes say, every index is masked.

#![expect(
    clippy::indexing_slicing,
    reason = "every index is masked to its array, whose size is a power of two"
)]

use core::mem::size_of;

/// Bytes of a message that are read. Past it the rest is left, and counted where the question is about a name of rules.
pub const ANSWER_BYTES: u32 = 4096;
/// Steps for one message: two for each byte of a name, and two for each record.
pub const ANSWER_STEPS: u32 = 8192;

const NAME_ROOM: usize = 256;
/// The longest name, as text without the dot at its end.
const NAME_MOST: u32 = 253;
/// Where the question begins, and how a record's name points there.
const HEADER_BYTES: u32 = 12;
const POINTER: u32 = 0xc0;
const POINTER_TO_QUESTION: u32 = POINTER << 8 | HEADER_BYTES;
/// Type and class of a question; type, class, time to live and length of a record.
const QUESTION_REST: u32 = 4;
const RECORD_REST: u32 = 10;
const IS_ANSWER: u8 = 0x80;
const IS_CUT: u8 = 0x02;
const TYPE_A: u32 = 1;
const TYPE_AAAA: u32 = 28;
const CLASS_IN: u32 = 1;

/// The number of a name before its first byte.
const NUMBER_BEGIN: u64 = 0xcbf2_9ce4_8422_2325;
/// In the place of a name's number where an address stands for more names than are kept: refused as undecided.
pub const NAME_UNDECIDED: u64 = 1;

/// One more byte of a name, from its end on. FNV-1a: who makes a name with the number of another one has it refused as
/// that one, and wins nothing.
#[inline(always)]
const fn number_step(number: u64, byte: u8) -> u64 {
    (number ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
}

/// The number of a name in lower case, or of the pattern `*.name`: key of the map `NAMES`.
#[must_use]
pub fn name_number(name: &str) -> u64 {
    name.bytes().rev().fold(NUMBER_BEGIN, number_step)
}

/// What comes next in reading.
const READ_NAME: u32 = 0;
const NUMBER_NAME: u32 = 1;
const BEGIN_RECORD: u32 = 2;
const READ_RECORD: u32 = 3;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to read.
    More,
    /// [`Answer::candidate`] is a name, or a pattern for it: tell [`Answer::is_known`] where it is one of a rule. Of
    /// several the last one counts, which says most.
    Name,
    /// [`Answer::address`] is an address of [`Answer::names`].
    Address,
    /// All was read.
    End,
    /// The rest cannot be read.
    Broken,
}

/// A message, and how far it is read.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct Answer {
    /// The name that is read, in lower case with dots.
    name: [u8; NAME_ROOM],
    /// The address of the last record; of IPv4 the first four bytes.
    pub address: [u8; 16],
    /// The number that is to be looked up.
    pub candidate: u64,
    /// What the question and the name read last are known by; 0: nothing.
    known: [u64; 2],
    /// Number of the bytes of the name so far, from its end on.
    number: u64,
    /// 4 or 6.
    pub family: u32,
    /// What comes next.
    phase: u32,
    /// Bytes of the message.
    len: u32,
    /// Where reading stands, and behind the name that is read, where that is known.
    at: u32,
    behind: u32,
    /// Bytes that are left of a label.
    label: u32,
    /// Bytes of the name, or those that are to be numbered.
    name_len: u32,
    /// Where the name read last was pointed to.
    pointer: u32,
    /// Records that are left.
    records: u32,
    /// 1 until the question is read.
    in_question: u32,
    /// 1 where the server says that it left something out.
    is_cut: u32,
    /// Padding.
    pad: u32,
    /// The message.
    pub message: [u8; ANSWER_BYTES as usize],
}

impl Answer {
    /// Begins with `len` bytes of [`Self::message`]. Gives whether it is an answer to one question.
    #[inline(always)]
    pub fn begin(&mut self, len: u32) -> bool {
        let [flags, _] = self.bytes(2);
        if len <= HEADER_BYTES || flags & IS_ANSWER == 0 || self.number_at(4) != 1 {
            return false;
        }
        self.len = len;
        self.records = self.number_at(6);
        self.is_cut = u32::from(flags & IS_CUT != 0);
        self.known = [0; 2];
        self.in_question = 1;
        self.pointer = POINTER_TO_QUESTION;
        self.begin_name(HEADER_BYTES);
        true
    }

    /// Takes up that a rule is about the candidate.
    #[inline(always)]
    pub fn is_known(&mut self) {
        self.known[1] = self.candidate;
    }

    /// What the name is known by that was asked for, and that which the address stands with. 0: nothing.
    #[inline(always)]
    #[must_use]
    pub fn names(&self) -> [u64; 2] {
        self.known
    }

    /// Whether a rule is about the question and not all of the answer was read, when reading ended with this.
    #[inline(always)]
    #[must_use]
    pub fn lacks_some(&self, all_read: bool) -> bool {
        let asked = if self.in_question != 0 { self.known[1] } else { self.known[0] };
        asked != 0 && (!all_read || self.is_cut != 0)
    }

    /// Reads on.
    #[inline(always)]
    pub fn step(&mut self) -> Step {
        match self.phase {
            READ_NAME => self.read_name(),
            NUMBER_NAME => self.number_name(),
            BEGIN_RECORD => self.begin_record(),
            _ => self.read_record(),
        }
    }

    #[inline(always)]
    fn begin_name(&mut self, at: u32) {
        self.at = at;
        self.behind = 0;
        self.label = 0;
        self.name_len = 0;
        self.phase = READ_NAME;
    }

    /// One byte of a name.
    #[inline(always)]
    fn read_name(&mut self) -> Step {
        if self.at >= self.len {
            return Step::Broken;
        }
        let [byte, next] = self.bytes(self.at);
        if self.label != 0 {
            self.label -= 1;
            self.at += 1;
            return self.push(byte.to_ascii_lowercase());
        }
        if byte == 0 {
            self.leave_name(1);
            self.number = NUMBER_BEGIN;
            self.known[1] = 0;
            self.phase = NUMBER_NAME;
            return Step::More;
        }
        if u32::from(byte) >= POINTER {
            self.leave_name(2);
            // A circle ends with the steps.
            self.at = (u32::from(byte) & !POINTER) << 8 | u32::from(next);
            return Step::More;
        }
        self.label = u32::from(byte);
        self.at += 1;
        if u32::from(byte) >= 64 {
            return Step::Broken;
        }
        if self.name_len == 0 { Step::More } else { self.push(b'.') }
    }

    #[inline(always)]
    fn push(&mut self, byte: u8) -> Step {
        if self.name_len >= NAME_MOST {
            return Step::Broken;
        }
        self.name[self.name_len as usize & (NAME_ROOM - 1)] = byte;
        self.name_len += 1;
        Step::More
    }

    /// The bytes of the message go on behind the name: after its end, or after its first pointer.
    #[inline(always)]
    fn leave_name(&mut self, bytes: u32) {
        if self.behind == 0 {
            self.behind = self.at + bytes;
        }
    }

    /// One byte of the name's number, from its end on.
    #[inline(always)]
    fn number_name(&mut self) -> Step {
        if self.name_len == 0 {
            return self.end_name();
        }
        self.name_len -= 1;
        let last = self.name_len as usize;
        self.number = number_step(self.number, self.name[last & (NAME_ROOM - 1)]);
        if last == 0 {
            self.candidate = self.number;
            return Step::Name;
        }
        if self.name[(last - 1) & (NAME_ROOM - 1)] != b'.' {
            return Step::More;
        }
        self.candidate = number_step(number_step(self.number, b'.'), b'*');
        Step::Name
    }

    #[inline(always)]
    fn end_name(&mut self) -> Step {
        self.at = self.behind;
        self.phase = READ_RECORD;
        if self.in_question != 0 {
            self.in_question = 0;
            self.known[0] = self.known[1];
            self.at += QUESTION_REST;
            self.phase = BEGIN_RECORD;
        }
        Step::More
    }

    #[inline(always)]
    fn begin_record(&mut self) -> Step {
        if self.records == 0 {
            return Step::End;
        }
        self.records -= 1;
        if self.at + 2 > self.len {
            return Step::Broken;
        }
        let pointer = self.number_at(self.at);
        if pointer >= POINTER << 8 && pointer == self.pointer {
            self.at += 2;
            self.phase = READ_RECORD;
            return Step::More;
        }
        self.pointer = pointer;
        self.begin_name(self.at);
        Step::More
    }

    /// What follows the name of a record.
    #[inline(always)]
    fn read_record(&mut self) -> Step {
        let at = self.at;
        if at + RECORD_REST > self.len {
            return Step::Broken;
        }
        let (kind, class, len) = (self.number_at(at), self.number_at(at + 2), self.number_at(at + 8));
        let data = at + RECORD_REST;
        self.at = data + len;
        self.phase = BEGIN_RECORD;
        if self.at > self.len {
            return Step::Broken;
        }
        let is_v4 = kind == TYPE_A && len == 4;
        let is_v6 = kind == TYPE_AAAA && len == 16;
        if class != CLASS_IN || !is_v4 && !is_v6 || self.known == [0; 2] {
            return Step::More;
        }
        self.family = if is_v4 { 4 } else { 6 };
        // What is beyond an IPv4 address is no part of it.
        let address: [u8; 16] = self.bytes(data);
        let [a, b, c, d, ..] = address;
        self.address = if is_v4 { [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] } else { address };
        Step::Address
    }

    /// Bytes of the message.
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: u32) -> [u8; N] {
        core::array::from_fn(|index| {
            self.message[(at.wrapping_add(index as u32) & (ANSWER_BYTES - 1)) as usize]
        })
    }

    /// A number of two bytes in the message.
    #[inline(always)]
    fn number_at(&self, at: u32) -> u32 {
        u16::from_be_bytes(self.bytes(at)).into()
    }
}

/// Value of the map `ASKERS`: who asked a name server by a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// The session's number.
    pub session: u64,
    /// The number by which the process is judged.
    pub agent: u32,
    /// Padding, zero.
    pub pad: u32,
}

/// Key of the map `NAMES`; its value is the number of a set, as those of networks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NameKey {
    /// See [`name_number`].
    pub name: u64,
    /// Which half of the tables.
    pub slot: u32,
    /// Padding, zero.
    pub pad: u32,
}

/// Key of the map `LEARNED`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LearnedKey {
    /// The session's number.
    pub session: u64,
    /// The address in network order; for IPv4 its first four bytes.
    pub address: [u8; 16],
    /// 4 or 6.
    pub family: u32,
    /// Padding, zero.
    pub pad: u32,
}

/// Names that are kept for an address of a session. Past it the address is refused as undecided.
pub const LEARNED_NAMES: u32 = 4;

/// What an answer said that a session received.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// When it was said last, nanoseconds since boot.
    pub seen_ns: u64,
    /// For which names: their numbers, 0 for none, and [`NAME_UNDECIDED`] as the last one where there are more.
    pub names: [u64; LEARNED_NAMES as usize + 1],
}

const _: () = {
    assert!(ANSWER_BYTES.is_power_of_two() && NAME_ROOM.is_power_of_two());
    assert!(NAME_MOST < NAME_ROOM as u32);
    assert!(
        size_of::<Asker>() == 16
            && size_of::<NameKey>() == 16
            && size_of::<LearnedKey>() == 32
            && size_of::<Learned>() == 48
    );
};
