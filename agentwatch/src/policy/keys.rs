//! Every key that a policy file can have. The reader refuses all others; the schema lists the same ones.

/// Of the file.
pub const TOP: [&str; 7] = ["version", "resources", "agents", "windows", "rules", "hooks", "tests"];
/// Of `hooks`.
pub const HOOKS: [&str; 1] = ["required"];
/// Of a resource.
pub const RESOURCE: [&str; 5] = ["why", "owner", "environment", "connect", "files"];
/// Of an agent.
pub const AGENT: [&str; 7] = ["owner", "match", "mode", "default", "guards", "scratch", "breakers"];
/// Of an entry of an agent's `match`.
pub const MATCH: [&str; 5] = ["exec", "run", "unit", "cgroup", "user"];
/// Of a map by operation: a verdict's, `unless`, `default`.
pub const OPERATION: [&str; 7] = ["exec", "run", "read", "write", "delete", "connect", "listen"];
/// Of a breaker.
pub const BREAKER: [&str; 2] = ["when", "then"];
/// Of a breaker's `when`, beside the operations.
pub const WHEN: [&str; 3] = ["denied", "touches", "within"];
/// Of a window.
pub const WINDOW: [&str; 2] = ["from", "to"];
/// Of a rule, beside the verdicts.
pub const RULE: [&str; 7] = ["name", "agents", "during", "unless", "message", "timeout", "then"];
/// Verdicts: a rule has exactly one.
pub const ACTION: [&str; 5] = ["allow", "log", "ask", "deny", "kill"];
/// Of a test case, beside the operations.
pub const CASE: [&str; 6] = ["name", "agent", "expect", "rule", "at", "names"];
