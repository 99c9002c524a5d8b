//! A problem in a policy: what, where, and what to do.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::{Place, Source};
use crate::output::escape::escape;

/// Defines the kinds of problems, each with its code.
macro_rules! codes {
    ($(#[$meta:meta])* $type:ident { $($variant:ident = $code:literal,)+ }) => {
        $(#[$meta])*
        pub enum $type { $($variant,)+ }

        impl $type {
            /// All kinds, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The code as it is printed.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }
        }
    };
}

codes! {
    /// What kind of problem: its code is stable, for scripts and for looking it up. Those from `AW0200` are
    /// warnings.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[expect(missing_docs, reason = "the names and the codes say it")]
    Code {
        Unreadable = "AW0001",
        TooLarge = "AW0002",
        NotUtf8 = "AW0003",
        Syntax = "AW0004",
        TooDeep = "AW0005",
        TooManyNodes = "AW0006",
        Tag = "AW0007",
        SeveralDocuments = "AW0008",
        UnknownKey = "AW0101",
        DuplicateKey = "AW0102",
        MissingKey = "AW0103",
        WrongType = "AW0104",
        WrongVersion = "AW0105",
        NotEnforced = "AW0106",
        BadPattern = "AW0107",
        BadName = "AW0109",
        DuplicateName = "AW0110",
        UnknownMode = "AW0111",
        EmptyList = "AW0112",
        TooMany = "AW0113",
        UnknownResource = "AW0114",
        UnknownAgent = "AW0115",
        UnknownWindow = "AW0116",
        UnknownGuard = "AW0117",
        UnknownWord = "AW0118",
        BadTime = "AW0119",
        BadValue = "AW0120",
        OneVerdict = "AW0121",
        TestFailed = "AW0122",
        UnknownRule = "AW0123",
        NoRoom = "AW0124",
        NoOwner = "AW0201",
        NeverMatches = "AW0202",
        FileIgnored = "AW0203",
        Shadowed = "AW0204",
        NotEnforcedYet = "AW0205",
        WindowEnded = "AW0206",
        ExecOnly = "AW0207",
        HostBits = "AW0208",
        NoEffect = "AW0209",
        Untold = "AW0210",
        UnknownUser = "AW0211",
        UndeclaredAgent = "AW0212",
    }
}

impl Code {
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
        let (line, before) = excerpt(&self.line, place.column.saturating_sub(1));
        let indent = " ".repeat(before);
        let room = line.chars().count().saturating_sub(before).max(1);
        let carets = "^".repeat(place.width.clamp(1, room));
        writeln!(f, "{margin}--> {}:{}:{}", printable(&self.file), place.line, place.column)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", printable(&line))?;
        write!(f, "{margin} | {indent}{carets}")?;
        match &self.help {
            Some(help) => write!(f, " {}", printable(help)),
            None => Ok(()),
        }
    }
}

/// Characters of a line that are shown: of a longer one those about the place. A list can stand in one line.
const EXCERPT_CHARS: usize = 120;
/// Of these, at most so many before the place.
const EXCERPT_BEFORE: usize = 40;

/// What is shown of a line, and how many characters of it come before the place.
fn excerpt(line: &str, before: usize) -> (Cow<'_, str>, usize) {
    let count = line.chars().count();
    if count <= EXCERPT_CHARS {
        return (Cow::Borrowed(line), before);
    }
    let from = before.saturating_sub(EXCERPT_BEFORE).min(count - EXCERPT_CHARS);
    let (head, tail) = (if from > 0 { "…" } else { "" }, if from + EXCERPT_CHARS < count { "…" } else { "" });
    let shown: String = line.chars().skip(from).take(EXCERPT_CHARS).collect();
    (Cow::Owned(format!("{head}{shown}{tail}")), before - from + usize::from(from > 0))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_line_what_is_about_the_place_is_shown() {
        let list: String = (0..100).map(|number| format!("'/srv/{number:03}', ")).collect();
        let source = Source { name: "p.yaml".into(), text: format!("a\n  - [{list}]\n") };
        for number in [0, 7, 50, 99] {
            let column = 6 + number * 12;
            let place = Place { line: 2, column, width: 10 };
            let shown = Diagnostic::new(Code::BadPattern, &source, place, "no").to_string();
            let lines: Vec<Vec<char>> = shown.lines().map(|line| line.chars().collect()).collect();
            let [.., text, carets] = lines.as_slice() else { panic!("{shown}") };
            assert!(text.len() <= 4 + 122, "{shown}");
            let marked: String =
                text.iter().zip(carets).filter(|(_, caret)| **caret == '^').map(|(one, _)| one).collect();
            assert_eq!(marked, format!("'/srv/{number:03}'"), "{shown}");
            assert!(text.contains(&'…'), "{shown}");
        }
        assert_eq!(excerpt("short", 3), ("short".into(), 3));
    }
}
