//! The self-test, as the control API gives it: the answer of `POST /v1/selftest`.

use serde::{Deserialize, Serialize};

/// What came of a self-test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTestView {
    /// When it ended: RFC 3339 in UTC; absent where there was none.
    pub time: Option<String>,
    /// Why there was none, in one sentence.
    pub skipped: Option<String>,
    /// What came of it, for each operation and each guard that can be tried.
    pub results: Vec<SelfTestResult>,
}

/// What came of it for an operation or a guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTestResult {
    /// `read`, `guard mount` …
    pub name: String,
    /// Everything that was tried was refused.
    pub proved: bool,
    /// How many things were tried.
    pub tries: u64,
    /// Why it is not proved, in one sentence.
    pub reason: Option<String>,
}
