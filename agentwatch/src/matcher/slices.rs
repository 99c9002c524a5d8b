//! Many short lists, each once, in one piece of memory: a list of its own on the heap takes many times as much.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash};

use foldhash::fast::RandomState;

/// No list follows.
const LAST: u32 = u32::MAX;

/// Different lists, numbered from 0 in the order in which they came.
#[derive(Debug)]
pub(super) struct Slices<T> {
    items: Vec<T>,
    /// Where each ends, and the next begins.
    ends: Vec<u32>,
    /// The last list with a hash.
    by_hash: HashMap<u32, u32, RandomState>,
    /// For each list the one before with the same hash.
    alike: Vec<u32>,
    hasher: RandomState,
}

impl<T: Copy + Eq + Hash> Slices<T> {
    pub(super) fn new() -> Self {
        let (by_hash, hasher) = (HashMap::default(), RandomState::default());
        Self { items: Vec::new(), ends: Vec::new(), by_hash, alike: Vec::new(), hasher }
    }

    /// How many lists there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// How many items there are in all lists.
    pub(super) fn items(&self) -> usize {
        self.items.len()
    }

    /// A list by its number.
    pub(super) fn get(&self, number: u32) -> &[T] {
        let end = |index: Option<usize>| index.and_then(|index| self.ends.get(index)).map_or(0, |end| *end);
        let (first, last) = (end((number as usize).checked_sub(1)), end(Some(number as usize)));
        self.items.get(first as usize..last as usize).unwrap_or_default()
    }

    /// All lists, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[T]> {
        (0..).take(self.len()).map(|number| self.get(number))
    }

    /// The number of a list that is there.
    pub(super) fn find(&self, list: &[T]) -> Option<u32> {
        let mut next = self.by_hash.get(&self.hash(list)).copied().filter(|next| *next != LAST);
        while let Some(number) = next {
            if self.get(number) == list {
                return Some(number);
            }
            next = self.alike.get(number as usize).copied().filter(|next| *next != LAST);
        }
        None
    }

    /// Adds a list that is not there.
    pub(super) fn add(&mut self, list: &[T]) -> u32 {
        let number = u32::try_from(self.ends.len()).unwrap_or(LAST);
        self.items.extend_from_slice(list);
        self.ends.push(u32::try_from(self.items.len()).unwrap_or(u32::MAX));
        let before = self.by_hash.insert(self.hash(list), number);
        self.alike.push(before.unwrap_or(LAST));
        number
    }

    /// The number of a list, whether it is there or not.
    pub(super) fn number(&mut self, list: &[T]) -> u32 {
        self.find(list).unwrap_or_else(|| self.add(list))
    }

    /// Half of a hash takes half the room, and few lists share it.
    fn hash(&self, list: &[T]) -> u32 {
        self.hasher.hash_one(list) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_found_again_by_their_numbers() {
        let mut slices = Slices::new();
        let lists: Vec<Vec<u32>> = (0..1_000).map(|one| (0..one % 7).chain([one]).collect()).collect();
        for (number, list) in (0..).zip(&lists) {
            assert_eq!(slices.find(list), None);
            assert_eq!(slices.number(list), number);
        }
        for (number, list) in (0..).zip(&lists) {
            assert_eq!((slices.number(list), slices.get(number)), (number, list.as_slice()));
        }
        assert_eq!(slices.len(), lists.len());
        assert!(slices.iter().eq(lists.iter().map(Vec::as_slice)));
    }
}
