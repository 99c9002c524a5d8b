//! Problems and places as JSON.

use serde::Serialize;

use crate::policy::{At, Diagnostic, Policy, Severity};

/// A problem.
#[derive(Debug, Serialize)]
pub(super) struct ProblemView<'a> {
    code: &'static str,
    severity: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
    file: &'a str,
    /// All three counted from 1, in characters; absent where the problem is the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<usize>,
}

impl<'a> From<&'a Diagnostic> for ProblemView<'a> {
    fn from(problem: &'a Diagnostic) -> Self {
        Self {
            code: problem.code.as_str(),
            severity: match problem.code.severity() {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            message: &problem.message,
            help: problem.help.as_deref(),
            file: &problem.file,
            line: problem.place.map(|place| place.line),
            column: problem.place.map(|place| place.column),
            width: problem.place.map(|place| place.width),
        }
    }
}

/// A place in the policy's files.
#[derive(Debug, Serialize)]
pub(super) struct PlaceView<'a> {
    file: &'a str,
    line: usize,
}

impl<'a> PlaceView<'a> {
    pub(super) fn new(policy: &'a Policy, at: At) -> Self {
        let file = policy.sources.get(at.source).map_or("", |source| &source.name);
        Self { file, line: at.place.line }
    }
}

/// `1 rule`, `2 rules`.
pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
