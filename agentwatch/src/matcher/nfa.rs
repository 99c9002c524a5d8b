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

/// A node. Nodes are as many as the patterns have bytes: what belongs to them lies in lists that all share.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Ways on that take one byte: the first of them in [`Nfa::ways`].
    ones: u32,
    /// Ways on that take one byte and lead to a node that others share.
    links: u32,
    /// Ways on that take none: each leads to a node that repeats.
    skips: u32,
    /// Bytes that lead back here.
    repeat: SetId,
    /// What matches where the text ends here: an index in [`Nfa::accepts`].
    accept: u32,
}

/// A way on, of which a node has a chain.
#[derive(Clone, Copy, Debug)]
struct Way {
    set: SetId,
    to: NodeId,
    /// The next one of the same node.
    next: u32,
}

/// The end of a chain of ways, and the list of no marks.
const NOTHING: u32 = 0;

/// The tree. Only options before a script lead back to where they came from.
#[derive(Debug)]
pub(super) struct Nfa {
    nodes: Vec<Node>,
    /// The ways of all nodes. The first is nobody's.
    ways: Vec<Way>,
    /// What matches at the nodes where something does: of each class the lowest, in order. The first is empty.
    accepts: Vec<Vec<Mark>>,
    /// What can still match behind the links of the nodes that have some.
    beyond: HashMap<NodeId, Vec<Mark>>,
    /// Each set of bytes that nodes name, once.
    sets: Vec<ByteSet>,
    set_ids: HashMap<ByteSet, SetId>,
    /// The same for sets of one byte, which most are; [`NONE`] where there is none yet.
    of_bytes: [SetId; 256],
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
        Self {
            nodes: Vec::new(),
            ways: vec![Way { set: NONE, to: 0, next: NOTHING }],
            accepts: vec![Vec::new()],
            beyond: HashMap::new(),
            sets,
            set_ids,
            of_bytes: [NONE; 256],
            words: HashMap::new(),
            ends: HashMap::new(),
        }
    }

    /// The sets of bytes, by id.
    pub(super) fn sets(&self) -> &[ByteSet] {
        &self.sets
    }

    fn set_id(&mut self, set: ByteSet) -> SetId {
        let byte = set.only().map(usize::from);
        if let Some(&known) = byte.and_then(|byte| self.of_bytes.get(byte))
            && known != NONE
        {
            return known;
        }
        let id = *self.set_ids.entry(set).or_insert_with(|| {
            self.sets.push(set);
            u32::try_from(self.sets.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = byte.and_then(|byte| self.of_bytes.get_mut(byte)) {
            *place = id;
        }
        id
    }

    /// A root for texts of one kind.
    pub(super) fn root(&mut self) -> NodeId {
        self.add(NONE)
    }

    /// Number of nodes. A way without a link leads to a node of a higher number, or to one of [`Nfa::ends`].
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id as usize)
    }

    /// Where a node leads by one byte, each with the set of bytes that do.
    pub(super) fn by_byte(&self, id: NodeId) -> impl Iterator<Item = (SetId, NodeId)> {
        let node = self.node(id);
        let chains = node.into_iter().flat_map(|node| self.chain(node.ones).chain(self.chain(node.links)));
        chains.chain(node.map(|node| (node.repeat, id)))
    }

    /// The nodes to which a node leads by one byte or by none, without what is behind links.
    pub(super) fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        let ones = self.node(id).into_iter().flat_map(|node| self.chain(node.ones));
        ones.map(|(_, to)| to).chain(self.skips(id))
    }

    /// The nodes to which a node leads without a byte.
    pub(super) fn skips(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        self.node(id).into_iter().flat_map(|node| self.chain(node.skips)).map(|(_, to)| to)
    }

    /// What matches where the text ends here: of each class the lowest, in order.
    pub(super) fn accept(&self, id: NodeId) -> &[Mark] {
        let list = self.node(id).and_then(|node| self.accepts.get(node.accept as usize));
        list.map_or(&[], Vec::as_slice)
    }

    /// What matches here whatever follows.
    pub(super) fn forever(&self, id: NodeId) -> &[Mark] {
        if self.node(id).is_some_and(|node| node.repeat == ALL) { self.accept(id) } else { &[] }
    }

    /// What can still match behind the links of a node.
    pub(super) fn beyond(&self, id: NodeId) -> &[Mark] {
        self.beyond.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The nodes that match whatever follows, and have no way on.
    pub(super) fn ends(&self) -> impl Iterator<Item = NodeId> {
        self.ends.values().copied()
    }

    fn chain(&self, first: u32) -> impl Iterator<Item = (SetId, NodeId)> {
        let mut next = first;
        std::iter::from_fn(move || {
            let way = self.ways.get(next as usize).filter(|_| next != NOTHING)?;
            next = way.next;
            Some((way.set, way.to))
        })
    }

    /// Adds a way to a chain of a node.
    fn lead(&mut self, from: NodeId, chain: impl Fn(&mut Node) -> &mut u32, set: SetId, to: NodeId) {
        let number = u32::try_from(self.ways.len()).unwrap_or(NOTHING);
        if let Some(node) = self.nodes.get_mut(from as usize) {
            let first = chain(node);
            self.ways.push(Way { set, to, next: *first });
            *first = number;
        }
    }

    /// Lets `mark` match texts of this root that these pieces stand for.
    pub(super) fn insert(&mut self, root: NodeId, pieces: &[Piece], mark: Mark) {
        if let [before @ .., Piece::Many(ByteSet::ALL)] = pieces {
            let at = self.walk(root, before);
            let end = self.end(mark);
            if !self.skips(at).any(|to| to == end) {
                self.lead(at, |node| &mut node.skips, NONE, end);
            }
            return;
        }
        let at = self.walk(root, pieces);
        self.accept_at(at, mark);
    }

    fn accept_at(&mut self, id: NodeId, mark: Mark) {
        let next = u32::try_from(self.accepts.len()).unwrap_or(NOTHING);
        let Some(node) = self.nodes.get_mut(id as usize) else { return };
        if node.accept == NOTHING {
            node.accept = next;
            self.accepts.push(Vec::new());
        }
        if let Some(list) = self.accepts.get_mut(node.accept as usize) {
            lower(list, mark);
        }
    }

    fn end(&mut self, mark: Mark) -> NodeId {
        if let Some(&end) = self.ends.get(&mark) {
            return end;
        }
        let end = self.add(ALL);
        self.accept_at(end, mark);
        self.ends.insert(mark, end);
        end
    }

    /// Lets `mark` match this script of its interpreter.
    pub(super) fn insert_script(&mut self, root: NodeId, glob: &ScriptGlob, mark: Mark) {
        let (word, option) = match self.words.get(glob.interpreter()) {
            Some(&known) => known,
            None => self.add_word(glob.interpreter()),
        };
        lower(self.beyond.entry(option).or_default(), mark);
        for pieces in glob.interpreters() {
            let end = self.walk(root, pieces);
            self.link(end, b' ', word);
            lower(self.beyond.entry(end).or_default(), mark);
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
        let set = self.set_id(ByteSet::of(byte));
        let known = self.node(from).is_some_and(|node| self.chain(node.links).any(|way| way == (set, to)));
        if !known {
            self.lead(from, |node| &mut node.links, set, to);
        }
    }

    fn walk(&mut self, from: NodeId, pieces: &[Piece]) -> NodeId {
        pieces.iter().fold(from, |at, piece| self.step(at, piece))
    }

    fn step(&mut self, from: NodeId, piece: &Piece) -> NodeId {
        let (Piece::One(set) | Piece::Many(set)) = *piece;
        let set = self.set_id(set);
        let Some(node) = self.nodes.get(from as usize) else { return from };
        if matches!(piece, Piece::One(_)) {
            if let Some((_, to)) = self.chain(node.ones).find(|(other, _)| *other == set) {
                return to;
            }
            let to = self.add(NONE);
            self.lead(from, |node| &mut node.ones, set, to);
            return to;
        }
        // Two stars in a row stand for one.
        if node.repeat == set {
            return from;
        }
        let is_end = |node: &Node| node.repeat == ALL && node.accept != NOTHING;
        let same = |id: &NodeId| self.node(*id).is_some_and(|node| node.repeat == set && !is_end(node));
        if let Some(to) = self.skips(from).find(same) {
            return to;
        }
        let to = self.add(set);
        self.lead(from, |node| &mut node.skips, NONE, to);
        to
    }

    fn add(&mut self, repeat: SetId) -> NodeId {
        let id = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(Node { ones: NOTHING, links: NOTHING, skips: NOTHING, repeat, accept: NOTHING });
        id
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
        Err(place) => {
            // Most lists stay as short as they begin.
            if marks.is_empty() {
                marks.reserve_exact(1);
            }
            marks.insert(place, mark);
        }
    }
}
