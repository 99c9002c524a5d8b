//! Exit codes of every command: scripts rely on them.

/// Done as asked.
pub const DONE: u8 = 0;
/// Tried and failed.
pub const FAILED: u8 = 1;
/// The command line cannot be understood or names what does not exist.
pub const USAGE: u8 = 2;
/// A check found a violation: denied, failed verification, failed policy test.
pub const VIOLATION: u8 = 3;
/// The policy has errors.
pub const BAD_POLICY: u8 = 4;
/// The daemon is not reachable.
pub const UNREACHABLE: u8 = 5;
/// The kernel or the caller's privileges do not allow it.
pub const NOT_ALLOWED: u8 = 6;
