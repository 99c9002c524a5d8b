//! Where fields are in this kernel's structures, read from its BTF.
//!
//! Only what the loader needs: structures by name, and the offset of a field, through anonymous members,
//! nested structures and typedefs. A module's BTF continues that of the kernel.

use std::collections::HashMap;

/// Why BTF could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// Not BTF, or of a version that this program does not know.
    #[error("the kernel's type information is not in a form that agentwatch knows (bad header)")]
    Header,
    /// Ends within an entry.
    #[error("the kernel's type information ends early, at byte {0}")]
    Short(usize),
    /// A kind of type that this program does not know.
    #[error(
        "the kernel's type information has an entry of unknown kind {kind} (type {id}): a newer agentwatch may know it"
    )]
    Kind {
        /// The kind's number.
        kind: u32,
        /// The type's number.
        id: usize,
    },
}

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNCTION: u32 = 12;
const KIND_PROTOTYPE: u32 = 13;

/// A type: where its entry begins, in which data.
#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: usize,
    name: u32,
    info: u32,
    /// Size, or the type that it refers to.
    size_or_type: u32,
}

impl Entry {
    const fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }
    const fn members(self) -> usize {
        (self.info & 0xffff) as usize
    }
    const fn has_bitfields(self) -> bool {
        self.info >> 31 != 0
    }
}

/// The kernel's types.
#[derive(Debug, Default)]
pub struct Btf {
    data: Vec<u8>,
    strings: Vec<u8>,
    /// Type 0 is `void` and has no entry.
    entries: Vec<Option<Entry>>,
    structures: HashMap<Vec<u8>, usize>,
}

impl Btf {
    /// Reads the kernel's own types (`/sys/kernel/btf/vmlinux`).
    ///
    /// # Errors
    /// Bytes that are no BTF, or of a newer form.
    pub fn parse(bytes: &[u8]) -> Result<Self, BtfError> {
        let mut btf = Self { entries: vec![None], ..Self::default() };
        btf.append(bytes)?;
        Ok(btf)
    }

    /// Adds the types of a module (`/sys/kernel/btf/NAME`), which refer to those already there.
    ///
    /// # Errors
    /// As [`Btf::parse`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), BtfError> {
        let header = bytes.get(..24).ok_or(BtfError::Header)?;
        if u16_at(header, 0) != Some(MAGIC) || header.get(2) != Some(&1) {
            return Err(BtfError::Header);
        }
        let word = |at| u32_at(header, at).map(|value| value as usize).ok_or(BtfError::Header);
        let header_len = word(4)?;
        let section = |offset: usize, len: usize| {
            let start = header_len.checked_add(offset).ok_or(BtfError::Header)?;
            bytes.get(start..start.checked_add(len).ok_or(BtfError::Header)?).ok_or(BtfError::Header)
        };
        let types = section(word(8)?, word(12)?)?;
        self.strings.extend_from_slice(section(word(16)?, word(20)?)?);
        let start = self.data.len();
        self.data.extend_from_slice(types);
        self.index(start)
    }

    /// Finds the beginning of each entry.
    fn index(&mut self, mut at: usize) -> Result<(), BtfError> {
        while at < self.data.len() {
            let word = |offset| u32_at(&self.data, at + offset).ok_or(BtfError::Short(at));
            let entry = Entry { offset: at, name: word(0)?, info: word(4)?, size_or_type: word(8)? };
            let id = self.entries.len();
            at += 12 + trailing_bytes(entry, id)?;
            if matches!(entry.kind(), KIND_STRUCT | KIND_UNION) && entry.name != 0 {
                let name = self.string(entry.name).to_vec();
                self.structures.entry(name).or_insert(id);
            }
            self.entries.push(Some(entry));
        }
        if at == self.data.len() { Ok(()) } else { Err(BtfError::Short(at)) }
    }

    /// Offset in bytes of a field, given as a path of names with dots; `|` parts the names that a field had
    /// over time. `None` where this kernel has no such structure or field.
    #[must_use]
    pub fn offset(&self, structure: &str, path: &str) -> Option<u32> {
        let mut id = *self.structures.get(structure.as_bytes())?;
        let mut offset = 0;
        for names in path.split('.') {
            let (found, of_type) = names.split('|').find_map(|name| self.member(id, name.as_bytes(), 0))?;
            offset += found;
            id = of_type;
        }
        Some(offset)
    }

    /// Value of an enumerator by its name, wherever it is. `None` where this kernel has none of that name.
    #[must_use]
    pub fn enumerator(&self, name: &str) -> Option<u32> {
        let enums = self.entries.iter().flatten().filter(|entry| entry.kind() == KIND_ENUM);
        let mut places =
            enums.flat_map(|entry| (0..entry.members()).map(|index| entry.offset + 12 + index * 8));
        let at = places.find(|at| {
            u32_at(&self.data, *at).is_some_and(|name_at| self.string(name_at) == name.as_bytes())
        })?;
        u32_at(&self.data, at + 4)
    }

    /// How many parameters a function has. `None` where this kernel has none of that name.
    #[must_use]
    pub fn parameters(&self, function: &str) -> Option<usize> {
        let mut functions = self.entries.iter().flatten().filter(|entry| entry.kind() == KIND_FUNCTION);
        let found = functions.find(|entry| self.string(entry.name) == function.as_bytes())?;
        let prototype = (*self.entries.get(found.size_or_type as usize)?)?;
        (prototype.kind() == KIND_PROTOTYPE).then(|| prototype.members())
    }

    /// A member by name, also within anonymous members: its offset and its type.
    fn member(&self, id: usize, name: &[u8], depth: usize) -> Option<(u32, usize)> {
        /// Anonymous members nest a few deep; a loop would be a broken kernel.
        const MOST_DEPTH: usize = 16;
        let (_, entry) = self.resolve(id)?;
        if !matches!(entry.kind(), KIND_STRUCT | KIND_UNION) || depth > MOST_DEPTH {
            return None;
        }
        (0..entry.members()).find_map(|index| {
            let at = entry.offset + 12 + index * 12;
            let (name_at, type_id) = (u32_at(&self.data, at)?, u32_at(&self.data, at + 4)? as usize);
            let bits = u32_at(&self.data, at + 8)?;
            let offset = if entry.has_bitfields() { bits & 0x00ff_ffff } else { bits } / 8;
            if name_at == 0 || self.string(name_at).is_empty() {
                let (inner, of_type) = self.member(type_id, name, depth + 1)?;
                Some((offset + inner, of_type))
            } else {
                (self.string(name_at) == name).then_some((offset, type_id))
            }
        })
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: usize) -> Option<(usize, Entry)> {
        const TYPEDEF: u32 = 8;
        const RESTRICT: u32 = 11;
        const TYPE_TAG: u32 = 18;
        loop {
            let entry = (*self.entries.get(id)?)?;
            match entry.kind() {
                TYPEDEF..=RESTRICT | TYPE_TAG => {
                    // A reference to itself or forward in a circle would not end.
                    if entry.size_or_type as usize == id {
                        return None;
                    }
                    id = entry.size_or_type as usize;
                }
                _ => return Some((id, entry)),
            }
        }
    }

    fn string(&self, at: u32) -> &[u8] {
        let rest = self.strings.get(at as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// Bytes behind the first twelve of an entry.
fn trailing_bytes(entry: Entry, id: usize) -> Result<usize, BtfError> {
    let members = entry.members();
    Ok(match entry.kind() {
        // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
        2 | 7..=KIND_FUNCTION | 16 | 18 => 0,
        // integer, variable, declaration tag
        1 | 14 | 17 => 4,
        // array
        3 => 12,
        // structure, union, data section, enumeration of 64 bits
        KIND_STRUCT | KIND_UNION | 15 | 19 => members * 12,
        // enumeration, function prototype
        KIND_ENUM | KIND_PROTOTYPE => members * 8,
        kind => return Err(BtfError::Kind { kind, id }),
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `struct a { int x; union { int y; struct b { int p; int z; } inner; }; }`, by hand.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0a\0x\0y\0b\0p\0z\0inner\0e\0ONE\0TWO\0f\0";
        let mut types: Vec<u32> = Vec::new();
        types.extend([1, 1 << 24, 4, 32]); // 1: int
        types.extend([11, 4 << 24 | 2, 8, 13, 1, 0, 15, 1, 32]); // 2: struct b { p; z at 4 }
        types.extend([0, 5 << 24 | 2, 8, 9, 1, 0, 17, 2, 0]); // 3: union { y; inner }
        types.extend([5, 4 << 24 | 2, 12, 7, 1, 0, 0, 3, 32]); // 4: struct a { x; anonymous at 4 }
        types.extend([23, 6 << 24 | 2, 4, 25, 1, 29, 7]); // 5: enum e { ONE = 1, TWO = 7 }
        types.extend([0, 13 << 24 | 2, 1, 7, 1, 9, 1]); // 6: int (int x, int y)
        types.extend([33, 12 << 24, 6]); // 7: f
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend([1, 0]);
        for word in [24, 0, types.len() as u32 * 4, types.len() as u32 * 4, strings.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        types.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn finds_fields_through_anonymous_and_named_members() {
        let btf = Btf::parse(&sample()).unwrap();
        assert_eq!(btf.offset("a", "x"), Some(0));
        assert_eq!(btf.offset("a", "y"), Some(4));
        assert_eq!(btf.offset("a", "inner.z"), Some(8));
        assert_eq!(btf.offset("a", "gone|inner.p"), Some(4));
        assert_eq!(btf.offset("a", "z"), None);
        assert_eq!(btf.offset("c", "x"), None);
        assert_eq!(["ONE", "TWO", "THREE"].map(|name| btf.enumerator(name)), [Some(1), Some(7), None]);
        assert_eq!(["f", "x"].map(|name| btf.parameters(name)), [Some(2), None]);
    }

    #[test]
    fn refuses_what_is_no_btf() {
        assert_eq!(Btf::parse(b"ELF").unwrap_err(), BtfError::Header);
        let mut broken = sample();
        broken[24 + 7] = 30; // kind of the first type
        assert_eq!(Btf::parse(&broken).unwrap_err(), BtfError::Kind { kind: 30, id: 1 });
    }

    proptest! {
        #[test]
        fn survives_any_bytes(mut flips in proptest::collection::vec((0usize..200, any::<u8>()), 0..20)) {
            let mut bytes = sample();
            for (at, value) in flips.drain(..) {
                let len = bytes.len();
                bytes[at % len] = value;
            }
            if let Ok(btf) = Btf::parse(&bytes) {
                let _ = btf.offset("a", "inner.z");
            }
        }
    }
}
