//! From the kernel's bytes to typed records: every length and kind is checked, nothing is transmuted.
//!
//! A record that does not hold what it says is an error and is counted; no byte of it is believed.

mod bytes;
mod path;
mod record;
#[cfg(test)]
mod tests;

pub use bytes::DecodeError;
pub use path::PathText;
pub use record::{Args, Body, CauseRecord, Exec, FileAct, GuardRecord, NetAct, Record, decode};
