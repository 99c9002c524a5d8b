//! The four kinds of patterns, each as the plain sequences of pieces that it stands for.

use super::ByteSet;
use super::cover::covers;
use super::path::{Shape, shapes, shapes_with_below};
use super::token::{self, GlobError, Kind, Problem, Token};

/// One step of a pattern without alternatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Piece {
    /// One byte of this set.
    One(ByteSet),
    /// Any number of bytes of this set.
    Many(ByteSet),
}

/// A pattern over whole absolute paths: `*` and `?` inside a component, `**` across components, `[a-z]`,
/// `[!a]`, `{a,b}`, `\` before a character that stands for itself.
///
/// `/**/` also stands for `/`, so `/a/**/b` covers `/a/b`. A pattern without wildcards covers that path and,
/// where it is a folder, all below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathGlob {
    // Not what it stands for, which takes a hundred times as much: a policy has ten thousand of these.
    text: String,
    below: bool,
}

impl PathGlob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, and where in the text.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        shapes(text).map(|_| Self { text: text.to_owned(), below: false })
    }

    /// Reads a pattern over things of which a folder means all that is in it: without `**`, one whose last
    /// component is written out covers all below it, too, as in `/home/*/work`.
    ///
    /// # Errors
    /// What is wrong with it, and where in the text.
    pub fn parse_with_below(text: &str) -> Result<Self, GlobError> {
        shapes_with_below(text).map(|_| Self { text: text.to_owned(), below: true })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether this absolute path matches.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        self.shapes().iter().any(|shape| matches(&shape.forward(), path))
    }

    /// Whether every path that the other pattern covers is known to be covered by this one. Costs up to some
    /// milliseconds: for advice, not for decisions.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let sequences = |glob: &Self| glob.shapes().iter().map(Shape::forward).collect::<Vec<_>>();
        // Every path begins with a slash, which a pattern that begins with `**` leaves open.
        self == other || covers(&sequences(self), &sequences(other), Some(b'/'))
    }

    pub(super) fn reversed(&self) -> impl Iterator<Item = Vec<Piece>> {
        self.shapes().into_iter().map(|shape| shape.reversed())
    }

    /// The sequences that it stands for, over paths as they are written.
    pub(crate) fn forward(&self) -> impl Iterator<Item = Vec<Piece>> {
        self.shapes().into_iter().map(|shape| shape.forward())
    }

    fn shapes(&self) -> Vec<Shape> {
        // It could be read before.
        let shapes = if self.below { shapes_with_below(&self.text) } else { shapes(&self.text) };
        shapes.unwrap_or_default()
    }
}

/// A pattern over cgroups' paths. A cgroup below one that matches matches too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupGlob {
    text: String,
    shapes: Vec<Shape>,
}

impl CgroupGlob {
    /// Reads a path pattern, such as `/kubepods*/agents-*`.
    ///
    /// # Errors
    /// What is wrong with it, and where in the text.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        Ok(Self { text: text.to_owned(), shapes: with_below(shapes(text)?) })
    }

    /// Reads a pattern for a systemd unit's name, such as `ci-agent@*.service`: any cgroup of that name.
    ///
    /// # Errors
    /// What is wrong with it, and where in the text.
    pub fn unit(text: &str) -> Result<Self, GlobError> {
        let mut shapes = Vec::new();
        for tokens in token::parse(text)? {
            if let Some(slash) = tokens.iter().find(|token| token.is(b'/')) {
                return Err(GlobError::at(slash.offset, Problem::SlashInUnit));
            }
            shapes.push(Shape::named(&tokens)?);
        }
        Ok(Self { text: text.to_owned(), shapes: with_below(shapes) })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether this cgroup, or one above it, matches.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        self.forward().any(|pieces| matches(&pieces, path))
    }

    pub(super) fn forward(&self) -> impl Iterator<Item = Vec<Piece>> {
        self.shapes.iter().map(Shape::forward)
    }
}

/// A pattern over command lines: `*` stands for anything, `?` for one byte, `[a-z]`, `{a,b}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandGlob {
    text: String,
    sequences: Vec<Vec<Piece>>,
}

impl CommandGlob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, and where in the text.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        let sequences = token::parse(text)?.iter().map(|tokens| pieces(tokens, ByteSet::ALL)).collect();
        Ok(Self { text: text.to_owned(), sequences })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether this command line, as [`super::command_text`] makes it, matches.
    #[must_use]
    pub fn matches(&self, command: &[u8]) -> bool {
        self.sequences.iter().any(|pieces| matches(pieces, command))
    }

    /// Whether every command line that the other pattern covers is known to be covered by this one. Costs up
    /// to some milliseconds: for advice, not for decisions.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.text == other.text || covers(&self.sequences, &other.sequences, None)
    }

    pub(super) fn sequences(&self) -> impl Iterator<Item = &[Piece]> {
        self.sequences.iter().map(Vec::as_slice)
    }
}

/// A script that an interpreter runs: the interpreter's base name (which may have a subcommand, as in
/// `bun run`), any options, the script or module, and any arguments.
///
/// Only the list of known agents has these: they keep a path among a program's other arguments from
/// looking like the script, which a command glob cannot. An option's value that is a word of its own ends
/// the looking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptGlob {
    text: String,
    interpreter: String,
    interpreters: Vec<Vec<Piece>>,
    /// From the script's first byte to the end of the command line.
    scripts: Vec<Vec<Piece>>,
}

impl ScriptGlob {
    /// A script by its path; one with a space in it does not match.
    ///
    /// # Errors
    /// What is wrong with the interpreter's or the script's pattern.
    pub fn file(interpreter: &str, file: &str) -> Result<Self, GlobError> {
        let mut scripts = Vec::new();
        for shape in shapes(file)? {
            let pieces = narrow(&shape.forward());
            // What begins with a dash is an option.
            if let [Piece::Many(set), rest @ ..] = pieces.as_slice() {
                let first = Piece::One(set.without(b'-'));
                scripts.push([&[first], pieces.as_slice()].concat());
                scripts.push(rest.to_vec());
            } else {
                scripts.push(pieces);
            }
        }
        Self::build(interpreter, scripts, format!("{interpreter} {file}"))
    }

    /// A single word as the interpreter has it on its command line after options: `npm:@scope/package`.
    /// With `option` the word follows this option: `-m` and a Python module.
    ///
    /// # Errors
    /// What is wrong with the interpreter's or the word's pattern.
    pub fn word(interpreter: &str, option: Option<&str>, word: &str) -> Result<Self, GlobError> {
        let option = option.map_or_else(String::new, |option| format!("{option} "));
        let mut scripts = Vec::new();
        for tokens in token::parse(word)? {
            let word = pieces(&tokens, ByteSet::ALL.without(b' '));
            scripts.push([literal(&option), word].concat());
        }
        Self::build(interpreter, scripts, format!("{interpreter} {option}{word}"))
    }

    fn build(interpreter: &str, scripts: Vec<Vec<Piece>>, text: String) -> Result<Self, GlobError> {
        let mut interpreters = Vec::new();
        for tokens in token::parse(interpreter)? {
            if let Some(bad) = tokens.iter().find(|token| token.is(b'/')) {
                return Err(GlobError::at(bad.offset, Problem::BadInterpreter));
            }
            interpreters.push(pieces(&tokens, ByteSet::ALL.without(b' ')));
        }
        let arguments = [Piece::One(ByteSet::of(b' ')), Piece::Many(ByteSet::ALL)];
        let scripts = scripts
            .into_iter()
            .flat_map(|script| [[script.as_slice(), &arguments].concat(), script])
            .collect();
        Ok(Self { text, interpreter: interpreter.to_owned(), interpreters, scripts })
    }

    /// Interpreter and script as they were written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether this command line, as [`super::command_text`] makes it, matches.
    #[must_use]
    pub fn matches(&self, command: &[u8]) -> bool {
        let spaces = command.iter().enumerate().filter(|(_, byte)| **byte == b' ');
        spaces.map(|(space, _)| command.split_at(space)).any(|(name, rest)| {
            self.interpreters.iter().any(|pieces| matches(pieces, name)) && self.follows(rest)
        })
    }

    /// Whether the script follows, `rest` beginning with a space.
    fn follows(&self, mut rest: &[u8]) -> bool {
        while let [b' ', words @ ..] = rest {
            if self.scripts.iter().any(|pieces| matches(pieces, words)) {
                return true;
            }
            if words.first() != Some(&b'-') {
                return false;
            }
            let end = words.iter().position(|&byte| byte == b' ').unwrap_or(words.len());
            rest = words.get(end..).unwrap_or_default();
        }
        false
    }

    /// The interpreter as it was written: scripts of the same one can share what comes before them.
    pub(super) fn interpreter(&self) -> &str {
        &self.interpreter
    }

    pub(super) fn interpreters(&self) -> &[Vec<Piece>] {
        &self.interpreters
    }

    pub(super) fn scripts(&self) -> &[Vec<Piece>] {
        &self.scripts
    }
}

/// The pieces of tokens without alternatives, where wildcards stand for bytes of `wild`. A literal stands
/// for itself even where `wild` lacks it.
pub(super) fn pieces(tokens: &[Token], wild: ByteSet) -> Vec<Piece> {
    let piece = |token: &Token| match token.kind {
        Kind::Literal(byte) => Piece::One(ByteSet::of(byte)),
        Kind::Any => Piece::One(wild),
        Kind::Class(set) => Piece::One(set.and(wild)),
        Kind::Star | Kind::DoubleStar => Piece::Many(wild),
        // `token::parse` gives none of these.
        Kind::Open => Piece::One(ByteSet::of(b'{')),
        Kind::Comma => Piece::One(ByteSet::of(b',')),
        Kind::Close => Piece::One(ByteSet::of(b'}')),
    };
    tokens.iter().map(piece).collect()
}

/// Each shape, and all below it.
fn with_below(shapes: Vec<Shape>) -> Vec<Shape> {
    shapes.into_iter().flat_map(|shape| [shape.below(), shape]).collect()
}

fn literal(text: &str) -> Vec<Piece> {
    text.bytes().map(|byte| Piece::One(ByteSet::of(byte))).collect()
}

/// The same pieces, with wildcards that stand for no space.
fn narrow(pieces: &[Piece]) -> Vec<Piece> {
    let narrow = |piece: &Piece| match *piece {
        Piece::One(set) => Piece::One(set.without(b' ')),
        Piece::Many(set) => Piece::Many(set.without(b' ')),
    };
    pieces.iter().map(narrow).collect()
}

/// The plain matcher: follows every position that the text can have reached. Linear in the text.
pub(crate) fn matches(pieces: &[Piece], text: &[u8]) -> bool {
    let mut reached = vec![false; pieces.len() + 1];
    let mut next = reached.clone();
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    pass_over_stars(pieces, &mut reached);
    for &byte in text {
        next.fill(false);
        for (index, piece) in pieces.iter().enumerate() {
            if !reached.get(index).is_some_and(|&is| is) {
                continue;
            }
            let to = match *piece {
                Piece::One(set) if set.contains(byte) => index + 1,
                Piece::Many(set) if set.contains(byte) => index,
                _ => continue,
            };
            if let Some(place) = next.get_mut(to) {
                *place = true;
            }
        }
        std::mem::swap(&mut reached, &mut next);
        pass_over_stars(pieces, &mut reached);
    }
    reached.last().is_some_and(|&is| is)
}

/// A star may stand for nothing: where it is reached, so is what follows it.
fn pass_over_stars(pieces: &[Piece], reached: &mut [bool]) {
    let mut carried = false;
    for (index, place) in reached.iter_mut().enumerate() {
        *place |= carried;
        carried = *place && matches!(pieces.get(index), Some(Piece::Many(_)));
    }
}
