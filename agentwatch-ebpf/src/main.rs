//! The kernel programs of agentwatch.
//!
//! Each file holds the programs of one topic and names the kernel function that each hangs on. What they
//! share: [`kernel`] reads fields at the offsets that the loader found in BTF, [`session`] says whether a
//! process belongs to a session, [`path`] walks names, [`record`] puts a record into the ring.
//!
//! A process outside any session pays for one look-up in `PROCESSES` and leaves.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "see `atomic`")]

#[macro_use]
mod attach;
mod address;
mod atomic;
mod attribute;
mod automaton;
mod bound;
mod cause;
mod cgroup;
mod delegate;
mod exec;
mod exec_check;
mod file;
mod file_change;
mod guard;
mod job;
mod judge;
mod judge_net;
mod kernel;
mod known;
mod learn;
mod look;
mod maps;
mod mount;
mod mounted;
mod net;
mod path;
mod place;
mod process;
mod recognise;
mod record;
mod rule_text;
mod session;
mod user;

/// The kernel lets only programs that are GPL-compatible call the helpers for tracing and LSM.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: the verifier refuses programs in which a panic can be reached, so this never runs.
    unsafe { core::hint::unreachable_unchecked() }
}
