//! Bytes that no pattern tells apart, as classes: the automaton has a column for each class and not for
//! each byte.

use super::ByteSet;
use super::nfa::Nfa;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Classes {
    /// The class of each byte.
    pub of: [u8; 256],
    /// The bytes of each class.
    pub members: Vec<ByteSet>,
}

impl Classes {
    pub(super) fn new(nfa: &Nfa) -> Self {
        let mut members = vec![ByteSet::ALL];
        for &set in nfa.sets() {
            members = split(&members, set);
        }
        let mut of = [0; 256];
        for (byte, class) in (0..=u8::MAX).zip(&mut of) {
            let found = members.iter().position(|set| set.contains(byte)).unwrap_or(0);
            *class = u8::try_from(found).unwrap_or(0);
        }
        Self { of, members }
    }

    /// The classes that this set is made of.
    pub(super) fn within(&self, set: ByteSet) -> Vec<usize> {
        let inside =
            |(class, members): (usize, &ByteSet)| (members.and(set) != ByteSet::NONE).then_some(class);
        self.members.iter().enumerate().filter_map(inside).collect()
    }
}

fn split(members: &[ByteSet], by: ByteSet) -> Vec<ByteSet> {
    members
        .iter()
        .flat_map(|&set| [set.and(by), set.and(by.complement())])
        .filter(|&set| set != ByteSet::NONE)
        .collect()
}
