//! The kernel side as the daemon sees it: loading, pins, maps, and what this kernel can do.

pub mod ability;
pub mod bound;
pub mod btf;
mod load;
pub mod maps;
pub mod offsets;
pub mod probes;
mod processes;
pub mod rules;
pub mod skips;

use std::{io, path::PathBuf};

use crate::exit;

pub use ability::{Abilities, Ability, State, hooks_for, hooks_of};
pub use load::{HostLock, Kernel, PIN_ROOT, attach, build_id, check_host, detach};

/// Why the kernel side cannot work here.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Not root, or not enough capabilities.
    #[error(
        "agentwatch must run as root to load its kernel programs: start it with sudo, as a systemd service or as a privileged daemonset"
    )]
    NotRoot,
    /// Another daemon has the kernel programs, with other folders.
    #[error(
        "another agentwatch already runs the kernel programs of this host, with another run folder: a host has one daemon, so stop that one first (`pgrep -a agentwatch` finds it)"
    )]
    AnotherRuns,
    /// No type information.
    #[error(
        "cannot read this kernel's type information at `{path}` ({source}): agentwatch needs a kernel built with CONFIG_DEBUG_INFO_BTF, as those of all large distributions are"
    )]
    NoBtf {
        /// Where it should be.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Type information that cannot be read.
    #[error("cannot use this kernel's type information: {0}")]
    Btf(#[from] btf::BtfError),
    /// A field that agentwatch cannot do without.
    #[error(
        "this kernel's `struct {structure}` has no field `{field}`, without which agentwatch cannot attribute anything: is it older than 5.15?"
    )]
    NoField {
        /// The structure.
        structure: &'static str,
        /// The field.
        field: &'static str,
    },
    /// `/proc` is not the host's.
    #[error(
        "cannot read `{path}` ({source}): agentwatch needs /proc of the host; in a container give it the host's process ids"
    )]
    NoNamespace {
        /// What was read.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The BPF LSM is off.
    #[error(
        "this kernel runs without the BPF security module (active: `{active}`): add `bpf` to the kernel's `lsm=` parameter and boot again, or it would see nothing"
    )]
    NoBpfLsm {
        /// Contents of `/sys/kernel/security/lsm`.
        active: String,
    },
    /// No BPF file system.
    #[error(
        "cannot keep kernel objects under `{path}` ({source}): mount the BPF file system there with `mount -t bpf bpf /sys/fs/bpf`"
    )]
    NoBpfFs {
        /// Where they should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The object has no programs.
    #[error(
        "this agentwatch was built without its kernel programs (AGENTWATCH_SKIP_EBPF was set): build it again without that"
    )]
    NoObject,
    /// The object could not be loaded.
    #[error("cannot load the kernel programs: {0}")]
    Object(#[from] aya::EbpfError),
    /// A program that agentwatch cannot do without.
    #[error("the kernel refused the program for {gives} (on `{hook}`): {reason}")]
    Program {
        /// What it gives.
        gives: &'static str,
        /// On what it hangs.
        hook: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// Rules that cannot be kept here.
    #[error(
        "this kernel cannot enforce the policy: {lacking}. Set the agents' mode to `observe` or `recommend`, or use a kernel that has it; `agentwatch doctor` shows all"
    )]
    CannotEnforce {
        /// What is missing, and why.
        lacking: String,
    },
    /// More than a table has room for.
    #[error("the policy needs more than the {most} entries of the kernel table `{name}`: merge rules")]
    TableFull {
        /// Its name.
        name: &'static str,
        /// Its room.
        most: u32,
    },
    /// A map.
    #[error("cannot use the kernel table `{name}`: {source}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What went wrong.
        source: aya::maps::MapError,
    },
}

impl KernelError {
    /// The exit code of the contract.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::AnotherRuns => exit::FAILED,
            _ => exit::NOT_ALLOWED,
        }
    }
}
