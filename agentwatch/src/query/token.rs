//! The words of an expression.

use std::fmt;

use serde_json::Number;

/// Bytes of an expression. Past it it is refused.
const EXPR_BYTES: usize = 64 * 1024;

/// What is wrong with an expression, with the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExprError {
    /// The expression.
    pub text: String,
    /// Where, in characters from 0.
    pub column: usize,
    /// What.
    pub message: String,
}

impl std::error::Error for ExprError {}

impl fmt::Display for ExprError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.text.chars().map(|character| if character.is_control() { ' ' } else { character });
        let shown: String = shown.collect();
        let (column, indent) = (self.column + 1, self.column);
        write!(formatter, "{} at column {column}\n  {shown}\n  {:indent$}^", self.message, "")
    }
}

/// A word and where it begins, in characters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub column: usize,
    pub word: Word,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    Name(String),
    Text(String),
    Number(Number),
    /// `==`, `&&`, `(` …
    Sign(&'static str),
    End,
}

impl Word {
    /// How an error calls it.
    pub fn describe(&self) -> String {
        match self {
            Self::Name(name) => format!("`{name}`"),
            Self::Text(text) => format!("{text:?}"),
            Self::Number(number) => format!("`{number}`"),
            Self::Sign(sign) => format!("`{sign}`"),
            Self::End => "the end".to_owned(),
        }
    }
}

/// Longer ones first, so that `<=` is not `<` and something.
const SIGNS: [&str; 13] = ["==", "!=", "<=", ">=", "!~", "&&", "||", "<", ">", "~", "!", "(", ")"];

/// Splits an expression into words; the last one is [`Word::End`].
pub(super) fn split(text: &str) -> Result<Vec<Token>, ExprError> {
    let mut rest = Rest { text, left: text, column: 0 };
    if text.len() > EXPR_BYTES {
        return Err(rest.error(format!("the expression has more than {EXPR_BYTES} bytes: shorten it")));
    }
    let mut tokens = Vec::new();
    loop {
        rest.skip_while(char::is_whitespace);
        let column = rest.column;
        let word = rest.word()?;
        let ends = word == Word::End;
        tokens.push(Token { column, word });
        if ends {
            return Ok(tokens);
        }
    }
}

struct Rest<'a> {
    text: &'a str,
    left: &'a str,
    column: usize,
}

impl<'a> Rest<'a> {
    fn word(&mut self) -> Result<Word, ExprError> {
        let Some(first) = self.left.chars().next() else { return Ok(Word::End) };
        if let Some(sign) = SIGNS.into_iter().find(|sign| self.left.starts_with(sign)) {
            self.skip(sign.len());
            return Ok(Word::Sign(sign));
        }
        match first {
            '"' | '\'' => self.quoted(first),
            '0'..='9' | '-' => self.number(),
            'a'..='z' | 'A'..='Z' | '_' => {
                let name = self
                    .skip_while(|character| character.is_ascii_alphanumeric() || "_.".contains(character));
                Ok(Word::Name(name.to_owned()))
            }
            '=' => Err(self.error("write `==` to compare".to_owned())),
            '&' | '|' => Err(self.error(format!("write `{first}{first}`"))),
            _ => Err(self.error(format!("{first:?} has no meaning here: put text in quotes"))),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Word, ExprError> {
        let open = self.error("this quotation mark is not closed".to_owned());
        let mut text = String::new();
        self.skip(1);
        loop {
            let Some(character) = self.left.chars().next() else { return Err(open) };
            let begin = self.column;
            self.skip(character.len_utf8());
            match character {
                _ if character == quote => return Ok(Word::Text(text)),
                '\\' => text.push(self.escaped(begin)?),
                _ => text.push(character),
            }
        }
    }

    /// The character behind a backslash: as [`crate::output::escape`] writes it, so that it can be pasted.
    fn escaped(&mut self, begin: usize) -> Result<char, ExprError> {
        let known = self.left.chars().next().and_then(|character| match character {
            '\\' | '"' | '\'' => Some((character, 1)),
            'n' => Some(('\n', 1)),
            'r' => Some(('\r', 1)),
            't' => Some(('\t', 1)),
            'x' => Some((coded(self.left.get(1..3)?).filter(char::is_ascii)?, 3)),
            'u' => {
                let digits = self.left.strip_prefix("u{")?.split_once('}')?.0;
                Some((coded(digits)?, digits.len() + 3))
            }
            _ => None,
        });
        let Some((character, length)) = known else {
            self.column = begin;
            let known = "`\\\\`, `\\\"`, `\\'`, `\\n`, `\\r`, `\\t`, `\\x1b` and `\\u{202e}`";
            return Err(self.error(format!(
                "there is no such escape: {known} are known, and `\\\\` before a glob's own"
            )));
        };
        self.skip(length);
        Ok(character)
    }

    fn number(&mut self) -> Result<Word, ExprError> {
        let error = |number: &str| format!("`{number}` is no number: put text in quotes");
        let (left, column) = (self.left, self.column);
        let part = |character: char| character.is_ascii_alphanumeric() || "+-.".contains(character);
        let number = self.skip_while(part);
        number.parse().map(Word::Number).map_err(|_| {
            (self.left, self.column) = (left, column);
            self.error(error(number))
        })
    }

    fn skip_while(&mut self, part: impl Fn(char) -> bool) -> &'a str {
        let end = self.left.find(|character| !part(character)).unwrap_or(self.left.len());
        let (skipped, _) = self.left.split_at(end);
        self.skip(end);
        skipped
    }

    /// Goes on behind so many bytes.
    fn skip(&mut self, bytes: usize) {
        if let Some((skipped, left)) = self.left.split_at_checked(bytes) {
            self.column += skipped.chars().count();
            self.left = left;
        }
    }

    fn error(&self, message: String) -> ExprError {
        ExprError { text: self.text.to_owned(), column: self.column, message }
    }
}

fn coded(digits: &str) -> Option<char> {
    u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)
}
