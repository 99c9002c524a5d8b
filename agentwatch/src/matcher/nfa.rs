//! All patterns as one tree of pieces: patterns that begin alike share their beginning.

use std::collections::HashMap;

use super::{ByteSet, Mark, Piece, ScriptGlob};

/// Index of a node.
pub(super) type NodeId = u32;
/// Index of a set of bytes: nodes are many, and different sets few.
pub(super) type SetId = u32;

/// No byte.
const NONE: SetId = 0;
/// Every byte.
const ALL: SetId = 1;

#[derive(Debug)]
pub(super) struct Node {
    /// Ways on that take one byte.
    pub ones: Vec<(SetId, NodeId)>,
    /// Ways on that take one byte and lead to a node that others share.
    pub links: Vec<(SetId, NodeId)>,
    /// Ways on that take none: each leads to a node that repeats.
    pub skips: Vec<NodeId>,
    /// Bytes that lead back here.
    pub repeat: SetId,
    /// What matches where the text ends here: of each class the lowest, in order.
    pub accept: Vec<Mark>,
    /// What can still match from here: of each class the lowest, in order.
    pub lowest: Vec<Mark>,
}

/// The tree. Only options before a script lead back to where they came from.
#[derive(Debug)]
pub(super) struct Nfa {
    nodes: Vec<Node>,
    /// Each set of bytes that nodes name, once.
    sets: Vec<ByteSet>,
    set_ids: HashMap<ByteSet, SetId>,
    /// For each interpreter as it was written: where its options and its script begin, and where an option
    /// goes on.
    words: HashMap<String, (NodeId, NodeId)>,
    /// Where a mark matches whatever follows: the same node for all its patterns, so that states do not tell
    /// apart by which of them it was.
    ends: HashMap<Mark, NodeId>,
}

impl Nfa {
    pub(super) fn new() -> Self {
        let sets = vec![ByteSet::NONE, ByteSet::ALL];
        let set_ids = HashMap::from([(ByteSet::NONE, NONE), (ByteSet::ALL, ALL)]);
        Self { nodes: Vec::new(), sets, set_ids, words: HashMap::new(), ends: HashMap::new() }
    }

    /// The sets of bytes, by id.
    pub(super) fn sets(&self) -> &[ByteSet] {
        &self.sets
    }

    fn set_id(&mut self, set: ByteSet) -> SetId {
        *self.set_ids.entry(set).or_insert_with(|| {
            self.sets.push(set);
            u32::try_from(self.sets.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// A root for texts of one kind.
    pub(super) fn root(&mut self) -> NodeId {
        self.add(NONE)
    }

    pub(super) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id as usize)
    }

    /// Lets `mark` match texts of this root that these pieces stand for.
    pub(super) fn insert(&mut self, root: NodeId, pieces: &[Piece], mark: Mark) {
        if let [before @ .., Piece::Many(ByteSet::ALL)] = pieces {
            let at = self.walk(root, before, mark);
            let end = self.end(mark);
            if let Some(node) = self.nodes.get_mut(at as usize)
                && !node.skips.contains(&end)
            {
                node.skips.push(end);
            }
            return;
        }
        let at = self.walk(root, pieces, mark);
        if let Some(node) = self.nodes.get_mut(at as usize) {
            lower(&mut node.accept, mark);
        }
    }

    fn end(&mut self, mark: Mark) -> NodeId {
        if let Some(&end) = self.ends.get(&mark) {
            return end;
        }
        let end = self.add(ALL);
        if let Some(node) = self.nodes.get_mut(end as usize) {
            node.accept.push(mark);
            node.lowest.push(mark);
        }
        self.ends.insert(mark, end);
        end
    }

    /// Lets `mark` match this script of its interpreter.
    pub(super) fn insert_script(&mut self, root: NodeId, glob: &ScriptGlob, mark: Mark) {
        let (word, option) = match self.words.get(glob.interpreter()) {
            Some(&known) => known,
            None => self.add_word(glob.interpreter()),
        };
        self.touch(word, mark);
        self.touch(option, mark);
        for pieces in glob.interpreters() {
            let end = self.walk(root, pieces, mark);
            self.link(end, b' ', word);
        }
        for pieces in glob.scripts() {
            self.insert(word, pieces, mark);
        }
    }

    fn add_word(&mut self, interpreter: &str) -> (NodeId, NodeId) {
        let word = self.add(NONE);
        let inside = self.set_id(ByteSet::ALL.without(b' '));
        let option = self.add(inside);
        self.link(word, b'-', option);
        self.link(option, b' ', word);
        self.words.insert(interpreter.to_owned(), (word, option));
        (word, option)
    }

    /// A way from a node to another, once.
    fn link(&mut self, from: NodeId, byte: u8, to: NodeId) {
        let way = (self.set_id(ByteSet::of(byte)), to);
        if let Some(node) = self.nodes.get_mut(from as usize)
            && !node.links.contains(&way)
        {
            node.links.push(way);
        }
    }

    fn walk(&mut self, from: NodeId, pieces: &[Piece], mark: Mark) -> NodeId {
        let mut at = from;
        self.touch(at, mark);
        for piece in pieces {
            at = self.step(at, piece);
            self.touch(at, mark);
        }
        at
    }

    fn touch(&mut self, id: NodeId, mark: Mark) {
        if let Some(node) = self.nodes.get_mut(id as usize) {
            lower(&mut node.lowest, mark);
        }
    }

    fn step(&mut self, from: NodeId, piece: &Piece) -> NodeId {
        let (Piece::One(set) | Piece::Many(set)) = *piece;
        let set = self.set_id(set);
        let Some(node) = self.nodes.get(from as usize) else { return from };
        if matches!(piece, Piece::One(_)) {
            if let Some(&(_, to)) = node.ones.iter().find(|(other, _)| *other == set) {
                return to;
            }
            let to = self.add(NONE);
            if let Some(node) = self.nodes.get_mut(from as usize) {
                push_exact(&mut node.ones, (set, to));
            }
            return to;
        }
        // Two stars in a row stand for one.
        if node.repeat == set {
            return from;
        }
        let is_end = |node: &Node| node.repeat == ALL && !node.accept.is_empty();
        let same = |id: &&NodeId| self.node(**id).is_some_and(|node| node.repeat == set && !is_end(node));
        if let Some(&to) = node.skips.iter().find(same) {
            return to;
        }
        let to = self.add(set);
        if let Some(node) = self.nodes.get_mut(from as usize) {
            push_exact(&mut node.skips, to);
        }
        to
    }

    fn add(&mut self, repeat: SetId) -> NodeId {
        let id = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(Node {
            ones: Vec::new(),
            links: Vec::new(),
            skips: Vec::new(),
            repeat,
            accept: Vec::new(),
            lowest: Vec::new(),
        });
        id
    }
}

/// Appends to a list that is mostly of one: without room for more.
fn push_exact<T>(list: &mut Vec<T>, item: T) {
    if list.is_empty() {
        list.reserve_exact(1);
    }
    list.push(item);
}

impl Node {
    /// What matches here whatever follows.
    pub(super) fn forever(&self) -> &[Mark] {
        if self.repeat == ALL { &self.accept } else { &[] }
    }
}

/// Adds a mark to a list that has one of each class, in order.
fn lower(marks: &mut Vec<Mark>, mark: Mark) {
    match marks.binary_search_by_key(&mark.class, |other| other.class) {
        Ok(place) => {
            if let Some(other) = marks.get_mut(place) {
                *other = mark.min(*other);
            }
        }
        Err(0) if marks.is_empty() => push_exact(marks, mark),
        Err(place) => marks.insert(place, mark),
    }
}
