//! Path patterns as components, so that they can be read forwards and deepest component first.

use super::ByteSet;
use super::glob::{Piece, pieces};
use super::token::{self, EXPANSIONS_MAX, GlobError, Kind, Problem, Token};

/// The bytes of a path's component.
fn component_bytes() -> ByteSet {
    ByteSet::ALL.without(0).without(b'/')
}

/// A path pattern in which every wildcard stays inside its component but for whole [`Part::Folders`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Any number of components, or none, come before the parts.
    any_head: bool,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Component(Vec<Piece>),
    /// One or more components.
    Folders,
}

/// Reads a path pattern into the shapes that it stands for.
pub(super) fn shapes(text: &str) -> Result<Vec<Shape>, GlobError> {
    read(text, is_plain)
}

/// As [`shapes`], with all below a pattern that may name a folder: one whose last component is written out,
/// as in `/home/*/work`.
///
/// Not with `**`: `**/.env` means things of that name wherever they are. An automaton that had to remember
/// which of many such names it has passed would have a state for each combination of them.
pub(super) fn shapes_with_below(text: &str) -> Result<Vec<Shape>, GlobError> {
    read(text, |tokens| is_plain(tokens) || names_a_folder(tokens))
}

/// The shapes, with all below those of which this is true.
fn read(text: &str, with_below: impl Fn(&[Token]) -> bool) -> Result<Vec<Shape>, GlobError> {
    let mut all = Vec::new();
    for tokens in token::parse(text)? {
        let with_below = with_below(&tokens);
        for shape in shapes_of(&tokens)? {
            if with_below {
                all.push(shape.below());
            }
            all.push(shape);
        }
        if all.len() > EXPANSIONS_MAX {
            return Err(GlobError::at(0, Problem::TooManyExpansions));
        }
    }
    Ok(all)
}

fn is_plain(tokens: &[Token]) -> bool {
    tokens.iter().all(|token| matches!(token.kind, Kind::Literal(_)))
}

fn names_a_folder(tokens: &[Token]) -> bool {
    let mut components =
        tokens.split(|token| token.is(b'/')).rev().skip_while(|component| component.is_empty());
    components.next().is_none_or(is_plain) && !tokens.iter().any(|token| token.kind == Kind::DoubleStar)
}

fn shapes_of(tokens: &[Token]) -> Result<Vec<Shape>, GlobError> {
    if let Some([_, second]) = tokens.windows(2).find(|pair| pair.iter().all(|token| token.is(b'/'))) {
        return Err(GlobError::at(second.offset, Problem::EmptyComponent));
    }
    let mut components: Vec<&[Token]> = tokens.split(|token| token.is(b'/')).collect();
    let mut any_head = false;
    match components.first().copied() {
        Some([]) => {
            components.remove(0);
        }
        Some([first, rest @ ..]) if first.kind == Kind::DoubleStar => {
            any_head = true;
            if rest.is_empty() {
                components.remove(0);
            }
        }
        _ => return Err(GlobError::at(offset_of(tokens), Problem::NotAbsolute)),
    }
    // A slash at the end says that it is a folder, which the pattern need not know.
    if components.last().is_some_and(|last| last.is_empty()) {
        components.pop();
    }
    let mut shapes = vec![Shape { any_head, parts: Vec::new() }];
    for (index, component) in components.iter().enumerate() {
        let last = index + 1 == components.len();
        let variants = variants(component, last)?;
        if shapes.len() * variants.len() > EXPANSIONS_MAX {
            return Err(GlobError::at(offset_of(component), Problem::TooManyExpansions));
        }
        shapes =
            shapes.iter().flat_map(|shape| variants.iter().map(|parts| shape.followed_by(parts))).collect();
    }
    Ok(shapes)
}

fn offset_of(tokens: &[Token]) -> usize {
    tokens.first().map_or(0, |token| token.offset)
}

/// What one component of the pattern stands for: each variant is a sequence of parts.
fn variants(component: &[Token], last: bool) -> Result<Vec<Vec<Part>>, GlobError> {
    if let [token] = component
        && token.kind == Kind::DoubleStar
    {
        let folders = vec![Part::Folders];
        return Ok(if last { vec![folders] } else { vec![Vec::new(), folders] });
    }
    check(component)?;
    // `foo**bar` is one component, or two, or two with more between them.
    let mut variants: Vec<Vec<Part>> = Vec::new();
    for piece in component.split_inclusive(|token| token.kind == Kind::DoubleStar) {
        let here = pieces(piece, component_bytes());
        if variants.is_empty() {
            variants.push(vec![Part::Component(here)]);
            continue;
        }
        let star = Piece::Many(component_bytes());
        let opened = Part::Component([&[star], here.as_slice()].concat());
        if variants.len() * 3 > EXPANSIONS_MAX {
            return Err(GlobError::at(offset_of(piece), Problem::TooManyExpansions));
        }
        variants = variants
            .into_iter()
            .flat_map(|parts| {
                let two = [parts.as_slice(), std::slice::from_ref(&opened)].concat();
                let more = [parts.as_slice(), &[Part::Folders, opened.clone()]].concat();
                [joined(parts, &here), two, more]
            })
            .collect();
    }
    Ok(with_trailing_double_star(component, variants))
}

/// `foo**` at a component's end also covers what is below: `split_inclusive` leaves nothing after it.
fn with_trailing_double_star(component: &[Token], variants: Vec<Vec<Part>>) -> Vec<Vec<Part>> {
    if component.last().is_none_or(|token| token.kind != Kind::DoubleStar) {
        return variants;
    }
    variants.into_iter().flat_map(|parts| [[parts.as_slice(), &[Part::Folders]].concat(), parts]).collect()
}

fn joined(mut parts: Vec<Part>, more: &[Piece]) -> Vec<Part> {
    if let Some(Part::Component(last)) = parts.last_mut() {
        last.extend_from_slice(more);
    }
    parts
}

fn check(component: &[Token]) -> Result<(), GlobError> {
    let dots = component.iter().all(|token| token.is(b'.'));
    if dots && component.len() <= 2 {
        return Err(GlobError::at(offset_of(component), Problem::DotComponent));
    }
    for token in component {
        if let Kind::Class(set) = token.kind
            && set.and(component_bytes()) == ByteSet::NONE
        {
            return Err(GlobError::at(token.offset, Problem::SlashInClass));
        }
    }
    Ok(())
}

impl Shape {
    /// Any path whose last component is this.
    pub(super) fn named(component: &[Token]) -> Result<Self, GlobError> {
        check(component)?;
        Ok(Self { any_head: true, parts: vec![Part::Component(pieces(component, component_bytes()))] })
    }

    /// All below what the shape stands for.
    pub(super) fn below(&self) -> Self {
        self.followed_by(&[Part::Folders])
    }

    fn followed_by(&self, parts: &[Part]) -> Self {
        Self { any_head: self.any_head, parts: [self.parts.as_slice(), parts].concat() }
    }

    /// Over a path as it is written.
    pub(super) fn forward(&self) -> Vec<Piece> {
        let mut all = Vec::new();
        if self.any_head {
            all.push(Piece::Many(ByteSet::ALL));
        }
        for part in &self.parts {
            all.push(Piece::One(ByteSet::of(b'/')));
            match part {
                Part::Component(pieces) => all.extend_from_slice(pieces),
                Part::Folders => all.push(Piece::Many(ByteSet::ALL)),
            }
        }
        all
    }

    /// Over a path's components, deepest first, each followed by a NUL byte.
    pub(super) fn reversed(&self) -> Vec<Piece> {
        let mut all = Vec::new();
        for part in self.parts.iter().rev() {
            match part {
                Part::Component(pieces) => all.extend_from_slice(pieces),
                Part::Folders => all.push(Piece::Many(ByteSet::ALL)),
            }
            all.push(Piece::One(ByteSet::of(0)));
        }
        if self.any_head {
            all.push(Piece::Many(ByteSet::ALL));
        }
        all
    }
}
