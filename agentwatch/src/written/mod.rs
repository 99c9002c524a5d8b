//! What sessions left behind: which file was written by whom last, for as long as it is there.
//!
//! The kernel's table `WRITTEN` says by an inode that a session wrote it; here is what people ask of it: which session, by
//! which tool call, for which prompt. Both are kept over restarts of the daemon and of the host.

mod asked;
mod file;
mod jobs;
mod sources;
mod store;
mod tables;
#[cfg(test)]
mod tests;

pub use asked::Asked;
pub use file::{Kept, read};
pub use jobs::Jobs;
pub use sources::sources;
pub use store::{Write, Written, past};
pub use tables::Table;
