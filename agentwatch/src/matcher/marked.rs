//! Marked patterns over texts of several kinds as one automaton that ends in the set of what matches.

use super::alias::{Alias, Aliases, Follow};
use super::classes::Classes;
use super::nfa::{Nfa, NodeId};
use super::rows::Rows;
use super::{
    ByteSet, CommandGlob, Mark, PathGlob, Piece, ScriptGlob, TooManyStates, matches_pieces, minimise, subsets,
};

/// Patterns, for texts of several kinds, each kind with a number.
#[derive(Debug)]
pub struct Patterns {
    nfa: Nfa,
    roots: Vec<NodeId>,
    aliases: Aliases,
    /// The kind whose paths have other names, and where those begin.
    known: Option<(usize, NodeId)>,
}

impl Patterns {
    /// None yet, for so many kinds of texts.
    #[must_use]
    pub fn new(kinds: usize) -> Self {
        let mut nfa = Nfa::new();
        let roots = (0..kinds).map(|_| nfa.root()).collect();
        Self { nfa, roots, aliases: Aliases::default(), known: None }
    }

    /// From now on paths of this kind have these other names, too, where they are read as texts of another kind: that
    /// which follows all others. Once for all patterns.
    pub fn set_aliases(&mut self, kind: usize, aliases: Vec<Alias>) {
        self.aliases = Aliases::new(kind, aliases);
        self.known = Some((kind, self.nfa.root()));
    }

    /// Which of them patterns follow that are marked from now on.
    pub fn follow(&mut self, follow: Follow) {
        self.aliases.follow = follow;
    }

    /// Marks the texts of a kind that these pieces stand for.
    pub fn insert(&mut self, kind: usize, pieces: &[Piece], mark: Mark) {
        if let Some(&root) = self.roots.get(kind) {
            self.nfa.insert(root, pieces, mark);
        }
    }

    /// Marks paths, read from the root down with a slash before each name; the root itself is the empty text.
    pub fn insert_path(&mut self, kind: usize, glob: &PathGlob, mark: Mark) {
        let mut all: Vec<Vec<Piece>> = glob.forward().collect();
        if all.iter().any(|pieces| matches_pieces(pieces, b"/")) {
            all.push(Vec::new());
        }
        for pieces in all {
            self.insert(kind, &pieces, mark);
            self.aliases.spellings(kind, &pieces).iter().for_each(|other| self.insert_other(other, mark));
        }
    }

    /// Marks the folders above what a pattern covers: those that lead there, and with `**` all that may. What a pattern
    /// covers in any folder whatever is not above anything: it is covered wherever it comes to lie.
    pub fn insert_folders_above(&mut self, kind: usize, glob: &PathGlob, mark: Mark) {
        for pieces in glob.forward() {
            above(&pieces).for_each(|above| self.insert(kind, above, mark));
            for other in self.aliases.spellings(kind, &pieces) {
                above(&other).for_each(|above| self.insert_other(above, mark));
            }
        }
    }

    fn insert_other(&mut self, pieces: &[Piece], mark: Mark) {
        if let Some((_, root)) = self.known {
            self.nfa.insert(root, pieces, mark);
        }
    }

    /// Marks command lines.
    pub fn insert_command(&mut self, kind: usize, glob: &CommandGlob, mark: Mark) {
        glob.sequences().for_each(|pieces| self.insert(kind, pieces, mark));
    }

    /// Marks texts of this byte and what a command pattern matches.
    pub fn insert_command_after(&mut self, kind: usize, head: u8, glob: &CommandGlob, mark: Mark) {
        let head = [Piece::One(ByteSet::of(head))];
        glob.sequences().for_each(|pieces| self.insert(kind, &[&head, pieces].concat(), mark));
    }

    pub(super) fn insert_script(&mut self, kind: usize, glob: &ScriptGlob, mark: Mark) {
        if let Some(&root) = self.roots.get(kind) {
            self.nfa.insert_script(root, glob, mark);
        }
    }

    /// Makes an automaton of them. What they were made of is given back before there is a smaller one.
    ///
    /// # Errors
    /// When it needs more than so many states before equal ones are merged.
    pub fn build(self, states_max: usize) -> Result<Built, TooManyStates> {
        let classes = Classes::new(&self.nfa);
        let mut starts: Vec<Vec<NodeId>> = self.roots.iter().map(|&root| vec![root]).collect();
        if let Some((kind, others)) = self.known {
            starts.push(self.roots.get(kind).copied().into_iter().chain([others]).collect());
        }
        let built = subsets::build(&self.nfa, &classes, &starts, states_max)?;

        Ok(Built { class: classes.of, built })
    }
}

/// The folders that lead to what a pattern covers, each as the beginning of the pattern.
fn above(pieces: &[Piece]) -> impl Iterator<Item = &[Piece]> {
    let anywhere = usize::from(matches!(pieces.first(), Some(Piece::Many(_))));
    pieces.iter().enumerate().filter_map(move |(at, piece)| match piece {
        Piece::One(set) if set.contains(b'/') && at > anywhere => pieces.get(..at),
        Piece::Many(set) if set.contains(b'/') && at > 0 => pieces.get(..=at),
        Piece::One(_) | Piece::Many(_) => None,
    })
}

/// An automaton that is not yet the smallest, since what its marks come to is not known.
#[derive(Debug)]
pub struct Built {
    class: [u8; 256],
    built: subsets::Built,
}

impl Built {
    /// The sets of marks that texts can end in, by number. Of each class only the lowest is in it. Number 0 is
    /// the empty set.
    pub fn sets(&self) -> impl Iterator<Item = &[Mark]> {
        self.built.sets.iter()
    }

    /// The marks that a text of a kind ends in.
    #[must_use]
    pub fn marks<'a>(&self, kind: usize, bytes: impl IntoIterator<Item = &'a u8>) -> &[Mark] {
        self.built.sets.get(end_of(&self.class, &self.built.automaton, kind, bytes))
    }

    /// The smallest automaton that ends in these numbers where this one ends in its sets: `numbers` has one for
    /// each set, and 0 for the empty one.
    #[must_use]
    pub fn smallest(self, numbers: &[u32]) -> DeterministicAutomaton {
        let subsets::Built { mut automaton, sets } = self.built;
        drop(sets);
        for accept in &mut automaton.accept {
            *accept = numbers.get(*accept as usize).copied().unwrap_or(0);
        }
        DeterministicAutomaton { class: self.class, rows: minimise::minimise(&automaton) }
    }
}

/// A deterministic automaton over bytes. State 0 is dead: nothing matches whatever follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeterministicAutomaton {
    /// The class of each byte: less than [`DeterministicAutomaton::class_count`].
    pub class: [u8; 256],
    rows: Rows,
}

impl DeterministicAutomaton {
    /// Number of classes, 1 to 256.
    #[must_use]
    pub fn class_count(&self) -> u32 {
        u32::try_from(self.rows.classes).unwrap_or(256)
    }

    /// Number of states.
    #[must_use]
    pub fn states(&self) -> usize {
        self.rows.len()
    }

    /// The number in which a text ends that ends in a state, by state.
    #[must_use]
    pub fn accept(&self) -> &[u32] {
        &self.rows.accept
    }

    /// Where texts begin, by kind.
    #[must_use]
    pub fn starts(&self) -> &[u32] {
        &self.rows.starts
    }

    /// Next states: that of a state and a class at `state * class_count + class`. Takes much room where there are many.
    #[must_use]
    pub fn table(&self) -> Vec<u32> {
        let (mut table, mut row) = (Vec::with_capacity(self.rows.len() * self.rows.classes), Vec::new());
        for state in self.rows.states() {
            self.rows.expand(state, &mut row);
            table.extend_from_slice(&row);
        }
        table
    }

    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }
}

/// What a text of a kind ends in.
fn end_of<'a>(classes: &[u8; 256], rows: &Rows, kind: usize, bytes: impl IntoIterator<Item = &'a u8>) -> u32 {
    let mut state = rows.starts.get(kind).copied().unwrap_or(0);
    for &byte in bytes {
        if state == 0 {
            return 0;
        }
        let class = classes.get(usize::from(byte)).copied().unwrap_or(0);
        let own = rows.steps(state).iter().find(|step| step.class() == u32::from(class));
        state = own.map_or(rows.default_of(state), |step| step.next());
    }
    rows.accept.get(state as usize).copied().unwrap_or(0)
}

#[cfg(test)]
impl DeterministicAutomaton {
    /// The number in which a text of a kind ends.
    pub fn run<'a>(&self, kind: usize, bytes: impl IntoIterator<Item = &'a u8>) -> u32 {
        end_of(&self.class, &self.rows, kind, bytes)
    }
}
