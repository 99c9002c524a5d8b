//! Other names of things that patterns are about: what a pattern says of one name it says of the others.

use super::{ByteSet, Piece};

/// A thing and all below it have another name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alias {
    /// The name that patterns may have: a path without a slash at its end, so that the root is empty.
    pub from: Vec<u8>,
    /// The name by which it is known as well.
    pub to: Vec<u8>,
    /// It means nothing else, and was made by somebody who may say what rules are about, and by nobody whom they are to
    /// hold.
    pub trusted: bool,
    /// Something is mounted at the one name, and called by the other. Else the one is a link to the other.
    pub is_mount: bool,
}

/// Which aliases patterns follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// All.
    #[default]
    All,
    /// Those that are trusted.
    Trusted,
}

/// The aliases of texts of one kind.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    kind: usize,
    list: Vec<Alias>,
    pub follow: Follow,
}

impl Aliases {
    pub(super) fn new(kind: usize, list: Vec<Alias>) -> Self {
        Self { kind, list, follow: Follow::default() }
    }

    /// What a pattern says, said of each other name of what it is about.
    pub(super) fn spellings(&self, kind: usize, pieces: &[Piece]) -> Vec<Vec<Piece>> {
        if kind != self.kind || self.list.is_empty() {
            return Vec::new();
        }
        let mut all = vec![pieces.to_vec()];
        // A link leads to a path, and that may lie where something is mounted, which ends it.
        for is_mount in [false, true] {
            let mut more = Vec::new();
            let follows = |alias: &&Alias| alias.trusted || self.follow == Follow::All;
            for alias in self.list.iter().filter(follows).filter(|alias| alias.is_mount == is_mount) {
                all.iter().for_each(|pieces| respell(pieces, alias, &mut more));
            }
            more.retain(|pieces| !all.contains(pieces));
            all.append(&mut more);
        }
        all.split_off(1)
    }
}

/// What a pattern says of an alias's first name, said of its second.
fn respell(pieces: &[Piece], alias: &Alias, out: &mut Vec<Vec<Piece>>) {
    let Some(places) = places_after(pieces, &alias.from) else { return };
    let literal = |text: &[u8]| text.iter().map(|&byte| Piece::One(ByteSet::of(byte))).collect::<Vec<_>>();
    let mut add = |spelling: Vec<Piece>| {
        if !out.contains(&spelling) {
            out.push(spelling);
        }
    };
    if closed(pieces, &places).contains(&pieces.len()) {
        add(literal(&alias.to));
    }
    let below = step(pieces, &places, b'/');
    for place in below {
        // What matches whatever comes before matches below any name anyway.
        let anywhere = place == 0 && pieces.first() == Some(&Piece::Many(ByteSet::ALL));
        if let Some(rest) = pieces.get(place..)
            && !anywhere
        {
            add([literal(&alias.to).as_slice(), &[Piece::One(ByteSet::of(b'/'))], rest].concat());
        }
    }
}

/// The places in a pattern at which it goes on behind a text; nothing where it cannot begin so.
fn places_after(pieces: &[Piece], text: &[u8]) -> Option<Vec<usize>> {
    let mut places = vec![0];
    for &byte in text {
        places = step(pieces, &places, byte);
        if places.is_empty() {
            return None;
        }
    }
    Some(places)
}

/// The places behind one byte more.
fn step(pieces: &[Piece], places: &[usize], byte: u8) -> Vec<usize> {
    let mut next = Vec::new();
    for place in closed(pieces, places) {
        let to = match pieces.get(place) {
            Some(Piece::One(set)) if set.contains(byte) => place + 1,
            Some(Piece::Many(set)) if set.contains(byte) => place,
            _ => continue,
        };
        if !next.contains(&to) {
            next.push(to);
        }
    }
    next
}

/// The same places and those behind what need not be there.
fn closed(pieces: &[Piece], places: &[usize]) -> Vec<usize> {
    let mut all = Vec::with_capacity(places.len());
    for &place in places {
        let mut place = place;
        while !all.contains(&place) {
            all.push(place);
            match pieces.get(place) {
                Some(Piece::Many(_)) => place += 1,
                _ => break,
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::matcher::{Mark, PathGlob, Patterns, SparseAutomaton};

    fn alias(from: &str, to: &str) -> Alias {
        Alias { from: from.into(), to: to.into(), trusted: true, is_mount: false }
    }

    /// Whether a pattern covers a path, with these aliases.
    fn covers(pattern: &str, aliases: &[Alias], path: &str) -> bool {
        let mut patterns = Patterns::new(1);
        patterns.set_aliases(0, aliases.to_vec());
        patterns.insert_path(0, &PathGlob::parse(pattern).unwrap(), Mark { class: 0, rank: 0 });
        let automaton = SparseAutomaton::new(&patterns.build(1 << 16).unwrap().smallest(&[0, 1]));
        automaton.run(1, path.as_bytes()) == 1
    }

    #[test]
    fn what_is_said_of_one_name_is_said_of_the_other() {
        let run = [alias("/var/run", "/run")];
        assert!(covers("/var/run/docker.sock", &run, "/run/docker.sock"));
        assert!(covers("/var/run/docker.sock", &run, "/var/run/docker.sock"));
        let mut patterns = Patterns::new(1);
        patterns.set_aliases(0, run.to_vec());
        patterns.insert_path(0, &PathGlob::parse("/var/run").unwrap(), Mark { class: 0, rank: 0 });
        let automaton = SparseAutomaton::new(&patterns.build(1 << 16).unwrap().smallest(&[0, 1]));
        assert_eq!(automaton.run(0, b"/run/x"), 0, "where it is not known to be the same");
        assert!(covers("/var/*/x", &run, "/run/x") && covers("/var/**", &run, "/run/a/b"));
        assert!(
            covers("/var", &run, "/run/a") && covers("/var", &run, "/run") && !covers("/var", &run, "/runs")
        );
        assert!(!covers("/var/runs/x", &run, "/run/x") && !covers("/run/x", &run, "/var/run/x"));
        let file = [alias("/usr/bin/dropdb", "/usr/share/wrapper")];
        assert!(covers("/usr/bin/drop*", &file, "/usr/share/wrapper"));
        assert!(!covers("/usr/bin/d", &file, "/usr/share/wrapper"));
        assert!(covers("**/dropdb", &file, "/usr/share/wrapper"), "it is known by that name");
    }

    #[test]
    fn a_link_is_followed_to_what_is_mounted_there() {
        let both = [alias("/a", "/b/c"), Alias { is_mount: true, ..alias("/b", "\x000:1/d") }];
        assert!(covers("/a/x", &both, "\x000:1/d/c/x"));
        let circle = [alias("/a", "/b"), alias("/b", "/a")];
        assert!(covers("/a/x", &circle, "/b/x") && covers("/a/x", &circle, "/a/x"));
        let inward = [alias("/a", "/a/a")];
        assert!(covers("/a/x", &inward, "/a/a/x") && !covers("/a/x", &inward, "/a/a/a/x"));
    }

    #[test]
    fn the_root_can_have_another_name() {
        let root = [alias("", "/mnt")];
        assert!(covers("/etc/passwd", &root, "/mnt/etc/passwd") && covers("/**", &root, "/mnt/x"));
        let to_root = [alias("/host", "")];
        assert!(covers("/host/etc", &to_root, "/etc") && covers("/host", &to_root, "/etc"));
    }

    #[test]
    fn what_is_not_trusted_opens_nothing() {
        let mut patterns = Patterns::new(1);
        patterns.set_aliases(0, vec![Alias { trusted: false, ..alias("/a", "/b") }]);
        patterns.follow(Follow::Trusted);
        patterns.insert_path(0, &PathGlob::parse("/a").unwrap(), Mark { class: 0, rank: 0 });
        let automaton = SparseAutomaton::new(&patterns.build(1 << 16).unwrap().smallest(&[0, 1]));
        assert_eq!((automaton.run(1, b"/a/x"), automaton.run(1, b"/b/x")), (1, 0));
    }

    fn path() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "c"]), 0..4)
            .prop_map(|names| names.iter().map(|name| format!("/{name}")).collect())
    }

    fn pattern() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec!["a", "b", "c", "*", "a*", "**", "?", "{a,ab}", "[ab]"]);
        let head = prop::sample::select(vec!["", "", "**"]);
        (head, prop::collection::vec(name, 1..4))
            .prop_map(|(head, names)| format!("{head}/{}", names.join("/")))
    }

    proptest! {
        /// Covered is what the pattern covers by the one name or by the other.
        #[test]
        fn a_name_is_covered_as_its_other_name_is(pattern in pattern(), from in path(), rest in path()) {
            let glob = PathGlob::parse(&pattern).unwrap();
            let named = |text: String| if text.is_empty() { "/".to_owned() } else { text };
            let known = glob.matches(named(format!("{from}{rest}")).as_bytes());
            let other = format!("/other{rest}");
            let expected = known || glob.matches(other.as_bytes());
            prop_assert_eq!(covers(&pattern, &[alias(&from, "/other")], &other), expected);
        }
    }
}
