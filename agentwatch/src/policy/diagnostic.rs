//! A problem in a policy: what, where, and what to do.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::{Place, Source};
use crate::output::escape::escape;

/// What kind of problem: its code is stable, for scripts and for looking it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names and the codes say it")]
pub enum Code {
    Unreadable,
    TooLarge,
    NotUtf8,
    Syntax,
    TooDeep,
    TooManyNodes,
    Tag,
    SeveralDocuments,
    UnknownKey,
    DuplicateKey,
    MissingKey,
    WrongType,
    WrongVersion,
    NotEnforced,
    BadPattern,
    UnknownUser,
    BadName,
    DuplicateName,
    UnknownMode,
    EmptyList,
    TooMany,
    UnknownResource,
    UnknownAgent,
    UnknownWindow,
    UnknownGuard,
    UnknownWord,
    BadTime,
    BadValue,
    OneVerdict,
    TestFailed,
    UnknownRule,
    NoOwner,
    NeverMatches,
    FileIgnored,
    Shadowed,
    NotEnforcedYet,
    WindowEnded,
    ExecOnly,
    HostBits,
    NoEffect,
    Untold,
    UndeclaredAgent,
}

impl Code {
    /// The code as it is printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "AW0001",
            Self::TooLarge => "AW0002",
            Self::NotUtf8 => "AW0003",
            Self::Syntax => "AW0004",
            Self::TooDeep => "AW0005",
            Self::TooManyNodes => "AW0006",
            Self::Tag => "AW0007",
            Self::SeveralDocuments => "AW0008",
            Self::UnknownKey => "AW0101",
            Self::DuplicateKey => "AW0102",
            Self::MissingKey => "AW0103",
            Self::WrongType => "AW0104",
            Self::WrongVersion => "AW0105",
            Self::NotEnforced => "AW0106",
            Self::BadPattern => "AW0107",
            Self::UnknownUser => "AW0211",
            Self::BadName => "AW0109",
            Self::DuplicateName => "AW0110",
            Self::UnknownMode => "AW0111",
            Self::EmptyList => "AW0112",
            Self::TooMany => "AW0113",
            Self::UnknownResource => "AW0114",
            Self::UnknownAgent => "AW0115",
            Self::UnknownWindow => "AW0116",
            Self::UnknownGuard => "AW0117",
            Self::UnknownWord => "AW0118",
            Self::BadTime => "AW0119",
            Self::BadValue => "AW0120",
            Self::OneVerdict => "AW0121",
            Self::TestFailed => "AW0122",
            Self::UnknownRule => "AW0123",
            Self::NoOwner => "AW0201",
            Self::NeverMatches => "AW0202",
            Self::FileIgnored => "AW0203",
            Self::Shadowed => "AW0204",
            Self::NotEnforcedYet => "AW0205",
            Self::WindowEnded => "AW0206",
            Self::ExecOnly => "AW0207",
            Self::HostBits => "AW0208",
            Self::NoEffect => "AW0209",
            Self::Untold => "AW0210",
            Self::UndeclaredAgent => "AW0212",
        }
    }

    /// Whether the policy can be used all the same.
    #[must_use]
    pub fn severity(self) -> Severity {
        if self.as_str() < "AW02" { Severity::Error } else { Severity::Warning }
    }
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The policy can be used.
    Warning,
    /// The policy is refused.
    Error,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind.
    pub code: Code,
    /// The sentence.
    pub message: String,
    /// What to do, where that is known.
    pub help: Option<String>,
    /// The file.
    pub file: Arc<str>,
    /// Where in it; absent where the problem is the file itself.
    pub place: Option<Place>,
    /// The line that `place` is in.
    pub line: String,
}

impl Diagnostic {
    /// A problem at a place.
    #[must_use]
    pub fn new(code: Code, source: &Source, place: Place, message: impl Into<String>) -> Self {
        let line = place.line.checked_sub(1).and_then(|index| source.text.lines().nth(index));
        Self {
            code,
            message: message.into(),
            help: None,
            file: Arc::clone(&source.name),
            place: Some(place),
            line: line.unwrap_or_default().to_owned(),
        }
    }

    /// A problem with a whole file.
    #[must_use]
    pub fn of_file(code: Code, file: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message, help: None, file: file.into(), place: None, line: String::new() }
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.code.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{word}[{}]: {}", self.code.as_str(), printable(&self.message))?;
        let Some(place) = self.place else {
            write!(f, "  --> {}", printable(&self.file))?;
            return match &self.help {
                Some(help) => write!(f, "\n   = {}", printable(help)),
                None => Ok(()),
            };
        };
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(place.column.saturating_sub(1));
        let room = self.line.chars().count().saturating_sub(place.column - 1).max(1);
        let carets = "^".repeat(place.width.clamp(1, room));
        writeln!(f, "{margin}--> {}:{}:{}", printable(&self.file), place.line, place.column)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", printable(&self.line))?;
        write!(f, "{margin} | {indent}{carets}")?;
        match &self.help {
            Some(help) => write!(f, " {}", printable(help)),
            None => Ok(()),
        }
    }
}

/// The text with every character that a terminal would act on or not show replaced, one for one so that carets
/// fit.
fn printable(text: &str) -> String {
    // What has to be escaped comes back as a text of its own.
    let safe = |c: char| matches!(escape(c.encode_utf8(&mut [0; 4])), Cow::Borrowed(_));
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if safe(c) => c,
            _ => '\u{fffd}',
        })
        .collect()
}

/// All problems of a policy, in the order of files and lines. At least one of them is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Diagnostic>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
