//! From the words of an expression to the expression.

use super::expr::{Compare, Glob, Name, Node, Value};
use super::fields;
use super::token::{ExprError, Token, Word, split};
use crate::matcher::{CommandGlob, PathGlob};

/// Levels of parentheses and `!`. Past it the expression is refused.
const DEPTH: u32 = 64;

pub(super) fn parse(text: &str) -> Result<Node, ExprError> {
    let tokens = split(text)?;
    let mut parser = Parser { text, tokens: tokens.into_iter().peekable(), depth: 0 };
    let node = parser.any()?;
    match parser.next() {
        Token { word: Word::End, .. } => Ok(node),
        token => Err(parser.unexpected(&token, "`&&`, `||` or the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    depth: u32,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Node, ExprError> {
        let mut nodes = vec![self.all()?];
        while self.take("||").is_some() {
            nodes.push(self.all()?);
        }
        Ok(Node::Any(nodes))
    }

    fn all(&mut self) -> Result<Node, ExprError> {
        let mut nodes = vec![self.not()?];
        while self.take("&&").is_some() {
            nodes.push(self.not()?);
        }
        Ok(Node::All(nodes))
    }

    fn not(&mut self) -> Result<Node, ExprError> {
        let token = self.next();
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(
                self.error(token.column, format!("this is nested over {DEPTH} levels: write it flatter"))
            );
        }
        let node = match token.word {
            Word::Sign("!") => Node::Not(Box::new(self.not()?)),
            Word::Sign("(") => {
                let node = self.any()?;
                self.expect(")")?;
                node
            }
            Word::Name(name) if name == "has" && self.take("(").is_some() => {
                let name = self.name()?;
                self.expect(")")?;
                Node::Has(name)
            }
            Word::Name(name) => {
                let name = self.known(name, token.column)?;
                self.comparison(name)?
            }
            _ => return Err(self.unexpected(&token, "a field, `!`, `(` or `has(`")),
        };
        self.depth -= 1;
        Ok(node)
    }

    fn comparison(&mut self, name: Name) -> Result<Node, ExprError> {
        let not = |node| Node::Not(Box::new(node));
        for (sign, compare) in [
            ("==", Compare::Equal),
            ("<", Compare::Less),
            ("<=", Compare::LessOrEqual),
            (">", Compare::Greater),
            (">=", Compare::GreaterOrEqual),
        ] {
            if self.take(sign).is_some() {
                return Ok(Node::Compare(name, compare, self.value()?));
            }
        }
        if self.take("!=").is_some() {
            return Ok(not(Node::Compare(name, Compare::Equal, self.value()?)));
        }
        if self.take("~").is_some() {
            return self.matches(name);
        }
        if self.take("!~").is_some() {
            return self.matches(name).map(not);
        }
        Ok(Node::IsTrue(name))
    }

    fn value(&mut self) -> Result<Value, ExprError> {
        let token = self.next();
        match token.word {
            Word::Text(text) => Ok(Value::Text(text)),
            Word::Number(number) => Ok(Value::Number(number)),
            Word::Name(name) if name == "true" => Ok(Value::Truth(true)),
            Word::Name(name) if name == "false" => Ok(Value::Truth(false)),
            Word::Name(name) => {
                Err(self.error(token.column, format!("text stands in quotes: write \"{name}\"")))
            }
            _ => Err(self.unexpected(&token, "a number, a text in quotes, `true` or `false`")),
        }
    }

    fn matches(&mut self, name: Name) -> Result<Node, ExprError> {
        let token = self.next();
        let Word::Text(pattern) = &token.word else {
            return Err(self.unexpected(&token, "a glob in quotes"));
        };
        let glob = if fields::holds_path(&name.0) {
            PathGlob::parse(pattern).map(Glob::Path)
        } else {
            CommandGlob::parse(pattern).map(Glob::Words)
        };
        let glob = glob.map_err(|error| {
            // Behind the quotation mark. Escapes before it would move the caret; the sentence is plain anyway.
            let before = pattern.get(..error.offset).map_or(0, |before| before.chars().count());
            self.error(token.column + 1 + before, error.problem.to_string())
        })?;
        Ok(Node::Matches(name, glob))
    }

    fn name(&mut self) -> Result<Name, ExprError> {
        let token = self.next();
        match token.word {
            Word::Name(name) => self.known(name, token.column),
            _ => Err(self.unexpected(&token, "a field")),
        }
    }

    fn known(&self, name: String, column: usize) -> Result<Name, ExprError> {
        fields::check(&name).map_err(|message| self.error(column, message))?;
        Ok(Name(name))
    }

    fn next(&mut self) -> Token {
        let end = || Token { column: self.text.chars().count(), word: Word::End };
        self.tokens.next().unwrap_or_else(end)
    }

    fn take(&mut self, sign: &'static str) -> Option<Token> {
        self.tokens.next_if(|token| token.word == Word::Sign(sign))
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), ExprError> {
        let token = self.next();
        if token.word == Word::Sign(sign) {
            return Ok(());
        }
        Err(self.unexpected(&token, &format!("`{sign}`")))
    }

    fn unexpected(&self, token: &Token, expected: &str) -> ExprError {
        self.error(token.column, format!("{expected} should stand here, not {}", token.word.describe()))
    }

    fn error(&self, column: usize, message: String) -> ExprError {
        ExprError { text: self.text.to_owned(), column, message }
    }
}
