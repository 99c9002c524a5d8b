//! Sets of ports: `*`, `443`, `80,443,8000-8099`.

use std::ops::RangeInclusive;

use super::AddressError;
use super::parse::Problem;

/// Ranges that one pattern may list. Past it the pattern is refused.
pub const RANGES_MAX: usize = 256;

/// A set of ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ports(Vec<RangeInclusive<u32>>);

impl Ports {
    /// The ports from 0 to `max`.
    #[must_use]
    pub fn all(max: u32) -> Self {
        Self(vec![0..=max])
    }

    /// Reads a list of ports and ranges of them, none above `max`. `offset` is where the list begins in the
    /// whole pattern.
    pub(super) fn parse(text: &str, max: u32, offset: usize) -> Result<Self, AddressError> {
        if text == "*" {
            return Ok(Self::all(max));
        }
        let mut ranges = Vec::new();
        let mut at = offset;
        for item in text.split(',') {
            let bad = |problem| AddressError { offset: at, problem };
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let number = |word: &str| {
                let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
                let number = digits.then(|| word.parse().ok()).flatten();
                number.filter(|&port: &u32| port <= max).ok_or(bad(Problem::Port { max }))
            };
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(bad(Problem::BackwardPorts));
            }
            ranges.push(first..=last);
            at += item.len() + 1;
        }
        if ranges.len() > RANGES_MAX {
            return Err(AddressError { offset, problem: Problem::TooManyPorts });
        }
        Ok(Self(merged(ranges)))
    }

    /// The ranges, in order, apart from each other.
    #[must_use]
    pub fn ranges(&self) -> &[RangeInclusive<u32>] {
        &self.0
    }

    /// Whether the port is in the set.
    #[must_use]
    pub fn contains(&self, port: u32) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// Whether all ports of the other set are in this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let holds = |range: &RangeInclusive<u32>| {
            self.0.iter().any(|own| own.contains(range.start()) && own.contains(range.end()))
        };
        other.0.iter().all(holds)
    }
}

/// In order, with what touches made one.
fn merged(mut ranges: Vec<RangeInclusive<u32>>) -> Vec<RangeInclusive<u32>> {
    ranges.sort_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u32>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}
