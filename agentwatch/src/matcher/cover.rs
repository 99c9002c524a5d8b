//! Whether all that one pattern stands for is also what another stands for.

use std::collections::HashSet;

use super::ByteSet;
use super::glob::Piece;

/// Pairs of positions that are looked at. Past it the answer is "not known to be covered", which is
/// always safe to say: only advice depends on it.
const STEPS_MAX: usize = 4096;

/// Whether every text that one of `narrow` matches, after `start` where there is one, is matched by one of
/// `wide`.
pub(super) fn covers(wide: &[Vec<Piece>], narrow: &[Vec<Piece>], start: Option<u8>) -> bool {
    narrow.iter().all(|narrow| {
        let head = literal_head(narrow);
        let near: Vec<&[Piece]> =
            wide.iter().map(Vec::as_slice).filter(|wide| head_fits(wide, &head)).collect();
        !near.is_empty() && covered(&near, narrow, start)
    })
}

/// The bytes that every text of this pattern begins with.
fn literal_head(pieces: &[Piece]) -> Vec<u8> {
    let byte = |piece: &Piece| match piece {
        Piece::One(set) => single(*set),
        Piece::Many(_) => None,
    };
    pieces.iter().map_while(byte).collect()
}

fn single(set: ByteSet) -> Option<u8> {
    let mut members = (0..=u8::MAX).filter(|&byte| set.contains(byte));
    members.next().filter(|_| members.next().is_none())
}

/// Whether a pattern can match what begins so: most pairs of patterns end here.
fn head_fits(wide: &[Piece], head: &[u8]) -> bool {
    let mut bytes = head.iter();
    for piece in wide {
        match (piece, bytes.next()) {
            (Piece::Many(_), _) | (_, None) => return true,
            (Piece::One(set), Some(&byte)) if !set.contains(byte) => return false,
            _ => {}
        }
    }
    true
}

/// Follows every way through `narrow` together with all places that the same text can have reached in `wide`.
fn covered(wide: &[&[Piece]], narrow: &[Piece], start: Option<u8>) -> bool {
    let alphabet = alphabet(wide, narrow);
    let mut first: Vec<(usize, usize)> = (0..wide.len()).map(|index| (index, 0)).collect();
    close(wide, &mut first);
    let mut begin = vec![0];
    close_narrow(narrow, &mut begin);
    if let Some(byte) = start {
        first = step(wide, &first, byte);
        begin = begin.iter().flat_map(|&at| step_narrow(narrow, at, byte)).collect();
    }
    let mut seen = HashSet::new();
    let mut open: Vec<_> = begin.into_iter().map(|at| (at, first.clone())).collect();
    while let Some((at, places)) = open.pop() {
        if !seen.insert((at, places.clone())) {
            continue;
        }
        let accepted =
            || places.iter().any(|&(index, at)| wide.get(index).is_some_and(|one| one.len() == at));
        if seen.len() > STEPS_MAX || (at == narrow.len() && !accepted()) {
            return false;
        }
        for &byte in &alphabet {
            let ends = step_narrow(narrow, at, byte);
            if !ends.is_empty() {
                let places = step(wide, &places, byte);
                open.extend(ends.into_iter().map(|at| (at, places.clone())));
            }
        }
    }
    true
}

/// One byte for each group of bytes that the patterns do not tell apart.
fn alphabet(wide: &[&[Piece]], narrow: &[Piece]) -> Vec<u8> {
    let mut sets: Vec<ByteSet> = Vec::new();
    for piece in wide.iter().copied().flatten().chain(narrow) {
        let (Piece::One(set) | Piece::Many(set)) = *piece;
        if !sets.contains(&set) {
            sets.push(set);
        }
    }
    let mut known = HashSet::new();
    let signature = |byte: u8| sets.iter().map(|set| set.contains(byte)).collect::<Vec<_>>();
    (0..=u8::MAX).filter(|&byte| known.insert(signature(byte))).collect()
}

fn step(wide: &[&[Piece]], places: &[(usize, usize)], byte: u8) -> Vec<(usize, usize)> {
    let mut next = Vec::new();
    for &(index, at) in places {
        match wide.get(index).and_then(|pieces| pieces.get(at)) {
            Some(Piece::One(set)) if set.contains(byte) => next.push((index, at + 1)),
            Some(Piece::Many(set)) if set.contains(byte) => next.push((index, at)),
            _ => {}
        }
    }
    close(wide, &mut next);
    next
}

/// A star may stand for nothing: adds what follows it.
fn close(wide: &[&[Piece]], places: &mut Vec<(usize, usize)>) {
    let mut index = 0;
    while let Some(&(pattern, at)) = places.get(index) {
        if let Some(Piece::Many(_)) = wide.get(pattern).and_then(|pieces| pieces.get(at)) {
            places.push((pattern, at + 1));
        }
        index += 1;
    }
    places.sort_unstable();
    places.dedup();
}

fn step_narrow(narrow: &[Piece], at: usize, byte: u8) -> Vec<usize> {
    let mut ends = match narrow.get(at) {
        Some(Piece::One(set)) if set.contains(byte) => vec![at + 1],
        Some(Piece::Many(set)) if set.contains(byte) => vec![at],
        _ => Vec::new(),
    };
    close_narrow(narrow, &mut ends);
    ends
}

fn close_narrow(narrow: &[Piece], ends: &mut Vec<usize>) {
    while let Some(&last) = ends.last()
        && let Some(Piece::Many(_)) = narrow.get(last)
    {
        ends.push(last + 1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::matcher::{CommandGlob, PathGlob};

    #[test]
    fn paths_that_cover_others() {
        for (wide, narrow, covers) in [
            ("/srv", "/srv", true),
            ("/srv", "/srv/payments", true),
            ("/srv", "/srv/*/x[ab]", true),
            ("/srv", "/srvx", false),
            ("/srv/payments", "/srv", false),
            ("/home/*/.ssh/id_*", "/home/ada/.ssh/id_rsa", false),
            ("/home/*/.ssh/id_*", "/home/a?a/.ssh/id_rs[a]", true),
            ("/home/*/.ssh/*", "/home/*/.ssh/id_*", true),
            ("/home/*/.ssh/id_*", "/home/*/.ssh/*", false),
            ("/**", "/usr/bin/*", true),
            ("/**", "**/.env", true),
            ("**/.env", "/srv/{a,b}/**/.env", true),
            ("**/.env", "/srv/**", false),
            ("/usr/{bin,sbin}/*", "/usr/bin/x*", true),
            ("/usr/*/mkfs*", "/usr/sbin/mkfs*", true),
            ("/tmp/*", "/tmp/**", false),
        ] {
            let (one, two) = (PathGlob::parse(wide).unwrap(), PathGlob::parse(narrow).unwrap());
            assert_eq!(one.covers(&two), covers, "{wide} over {narrow}");
        }
    }

    #[test]
    fn commands_that_cover_others() {
        for (wide, narrow, covers) in [
            ("git push*", "git push*--force*", true),
            ("git push*--force*", "git push*", false),
            ("*", "rm -rf /*", true),
            ("kubectl *", "kubectl delete*", true),
            ("kubectl {delete,apply}*", "kubectl apply -f*", true),
        ] {
            let (one, two) = (CommandGlob::parse(wide).unwrap(), CommandGlob::parse(narrow).unwrap());
            assert_eq!(one.covers(&two), covers, "{wide} over {narrow}");
        }
    }

    fn pattern() -> impl Strategy<Value = String> {
        let piece =
            prop_oneof![Just("a"), Just("b"), Just("*"), Just("?"), Just("[ab]"), Just("/"), Just("**")];
        prop::collection::vec(piece, 0..6).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        /// What is said to be covered is: every text of the one is a text of the other.
        #[test]
        fn covering_is_never_claimed_wrongly(
            wide in pattern(), narrow in pattern(), texts in prop::collection::vec("/[ab/]{0,6}", 40),
        ) {
            let (Ok(one), Ok(two)) = (PathGlob::parse(&wide), PathGlob::parse(&narrow)) else { return Ok(()) };
            prop_assert!(one.covers(&one), "{wide} over itself");
            let outside = texts.iter().find(|text| two.matches(text.as_bytes()) && !one.matches(text.as_bytes()));
            if let Some(text) = outside {
                prop_assert!(!one.covers(&two), "{wide} over {narrow}, but {text}");
            }
        }
    }
}
