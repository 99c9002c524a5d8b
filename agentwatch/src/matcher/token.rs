//! The text of a glob as tokens, and the expansion of its alternatives.

use super::ByteSet;

/// Patterns that one pattern's `{a,b}` and `**` may stand for. Past it the pattern is refused.
pub const EXPANSIONS_MAX: usize = 256;
/// Bytes of one pattern. Past it the pattern is refused.
pub const PATTERN_BYTES_MAX: usize = 4096;

/// What is wrong with a pattern, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct GlobError {
    /// Byte offset in the pattern.
    pub offset: usize,
    /// What is wrong there.
    pub problem: Problem,
}

impl GlobError {
    pub(super) fn at(offset: usize, problem: Problem) -> Self {
        Self { offset, problem }
    }
}

/// What can be wrong with a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its description")]
pub enum Problem {
    #[error("the pattern is empty: write what it should match")]
    Empty,
    #[error("the pattern has more than {PATTERN_BYTES_MAX} bytes: shorten it")]
    TooLong,
    #[error("a pattern cannot hold a NUL byte: no path and no argument has one")]
    Nul,
    #[error("`[` is not closed: add `]`, or write `\\[` for the character itself")]
    OpenClass,
    #[error("this range is backwards: swap its ends")]
    BackwardRange,
    #[error("`[…]` stands for one byte of ASCII: write alternatives such as `{{ä,ö}}` instead")]
    WideClass,
    #[error("`[…]` never stands for `/` in a path: leave `/` out")]
    SlashInClass,
    #[error("`{{` is not closed: add `}}`, or write `\\{{` for the character itself")]
    OpenBrace,
    #[error("`}}` closes nothing: remove it, or write `\\}}` for the character itself")]
    StrayBrace,
    #[error("`\\` is the last character: write `\\\\` for the character itself")]
    TrailingEscape,
    #[error(
        "the pattern stands for more than {EXPANSIONS_MAX} patterns: split it, or use fewer `{{…}}` and `**`"
    )]
    TooManyExpansions,
    #[error("a path pattern covers the whole absolute path: begin it with `/` or `**/`")]
    NotAbsolute,
    #[error("no path that the kernel sees has an empty component: remove one `/`")]
    EmptyComponent,
    #[error("no path that the kernel sees has `.` or `..` in it: write the path without them")]
    DotComponent,
    #[error("a unit's name has no `/`: use `cgroup` for a path")]
    SlashInUnit,
    #[error("an interpreter is named by its base name, without `/`")]
    BadInterpreter,
}

/// One token of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub offset: usize,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Literal(u8),
    /// `?`
    Any,
    /// `[…]`
    Class(ByteSet),
    /// `*`
    Star,
    /// `**`, or more stars
    DoubleStar,
    Open,
    Comma,
    Close,
}

impl Token {
    pub(super) fn is(&self, byte: u8) -> bool {
        self.kind == Kind::Literal(byte)
    }
}

/// Reads a pattern and expands its `{a,b}`: each result is free of them.
pub(super) fn parse(text: &str) -> Result<Vec<Vec<Token>>, GlobError> {
    if text.is_empty() {
        return Err(GlobError::at(0, Problem::Empty));
    }
    if text.len() > PATTERN_BYTES_MAX {
        return Err(GlobError::at(PATTERN_BYTES_MAX, Problem::TooLong));
    }
    expand(&tokenise(text)?)
}

fn tokenise(text: &str) -> Result<Vec<Token>, GlobError> {
    let mut tokens = Vec::new();
    let mut depth = 0_usize;
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((offset, byte)) = bytes.next() {
        let kind = match byte {
            0 => return Err(GlobError::at(offset, Problem::Nul)),
            b'?' => Kind::Any,
            b'[' => class(offset, &mut bytes)?,
            b'\\' => {
                let (_, literal) = bytes.next().ok_or(GlobError::at(offset, Problem::TrailingEscape))?;
                Kind::Literal(literal)
            }
            b'*' => {
                let mut kind = Kind::Star;
                while bytes.next_if(|&(_, next)| next == b'*').is_some() {
                    kind = Kind::DoubleStar;
                }
                kind
            }
            b'{' => {
                depth += 1;
                Kind::Open
            }
            b',' if depth > 0 => Kind::Comma,
            b'}' => {
                depth = depth.checked_sub(1).ok_or(GlobError::at(offset, Problem::StrayBrace))?;
                Kind::Close
            }
            literal => Kind::Literal(literal),
        };
        tokens.push(Token { offset, kind });
    }
    Ok(tokens)
}

/// The rest of `[…]`, its `[` being read.
fn class(open: usize, bytes: &mut impl Iterator<Item = (usize, u8)>) -> Result<Kind, GlobError> {
    let unclosed = || GlobError::at(open, Problem::OpenClass);
    let mut members: Vec<(usize, u8, bool)> = Vec::new();
    let mut negated = false;
    loop {
        let (offset, byte) = bytes.next().ok_or_else(unclosed)?;
        match byte {
            b'!' | b'^' if members.is_empty() && !negated => negated = true,
            b']' if !members.is_empty() => break,
            b'\\' => members.push((offset, bytes.next().ok_or_else(unclosed)?.1, true)),
            0 => return Err(GlobError::at(offset, Problem::Nul)),
            0x80.. => return Err(GlobError::at(offset, Problem::WideClass)),
            _ => members.push((offset, byte, false)),
        }
    }
    let mut set = ByteSet::NONE;
    let mut rest = members.as_slice();
    loop {
        rest = match rest {
            [(offset, low, _), (_, b'-', false), (_, high, _), rest @ ..] => {
                if low > high {
                    return Err(GlobError::at(*offset, Problem::BackwardRange));
                }
                (*low..=*high).for_each(|byte| set.insert(byte));
                rest
            }
            [(_, byte, _), rest @ ..] => {
                set.insert(*byte);
                rest
            }
            [] => break,
        };
    }
    Ok(Kind::Class(if negated { set.complement() } else { set }))
}

/// Expands `{a,b}` as a shell does: alternatives first, everything else after that.
fn expand(tokens: &[Token]) -> Result<Vec<Vec<Token>>, GlobError> {
    let mut results: Vec<Vec<Token>> = vec![Vec::with_capacity(tokens.len())];
    let mut rest = tokens.iter().enumerate();
    while let Some((index, token)) = rest.next() {
        if token.kind != Kind::Open {
            results.iter_mut().for_each(|result| result.push(token.clone()));
            continue;
        }
        let inner = tokens.get(index + 1..).unwrap_or_default();
        let (parts, length) = alternatives(inner, token.offset)?;
        // The tokens up to and with the closing brace are done.
        rest.nth(length);
        let mut expanded = Vec::new();
        for part in parts {
            expanded.extend(expand(part)?);
        }
        if results.len().saturating_mul(expanded.len()) > EXPANSIONS_MAX {
            return Err(GlobError::at(token.offset, Problem::TooManyExpansions));
        }
        results = results
            .iter()
            .flat_map(|head| expanded.iter().map(move |tail| [head.as_slice(), tail].concat()))
            .collect();
    }
    Ok(results)
}

/// The alternatives of a group whose `{` was read, and the number of tokens before its `}`.
fn alternatives(tokens: &[Token], open: usize) -> Result<(Vec<&[Token]>, usize), GlobError> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0_usize);
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close if depth > 0 => depth -= 1,
            Kind::Comma if depth > 0 => {}
            Kind::Comma | Kind::Close => {
                parts.push(tokens.get(start..index).unwrap_or_default());
                start = index + 1;
                if token.kind == Kind::Close {
                    return Ok((parts, index));
                }
            }
            _ => {}
        }
    }
    Err(GlobError::at(open, Problem::OpenBrace))
}
