//! Finding agents that already run when the daemon starts.
//!
//! [`ProcSnapshot::read`] looks at the host once; [`plan`] says, from that alone, which processes become which
//! sessions. The daemon marks them in the kernel and looks again, until a plan is empty: whatever was forked
//! between the look and the mark is in the next one.

mod cgroups;
mod facts;
mod plan;
mod snapshot;
#[cfg(test)]
mod tests;

pub use self::cgroups::{CGROUPS_MAX, matching_cgroups};
pub use self::plan::{Adoption, Enclosing, Join, Plan, Root, plan};
pub use self::snapshot::{ARGUMENT_BYTES_MAX, ProcId, ProcInfo, ProcSnapshot};
