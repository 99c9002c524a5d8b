//! Set-up, virtual machines, tests, demo and benchmarks of agentwatch, as a library for `xtask`
//! and for the live tests.

#![cfg(feature = "host")]

pub mod apt;
pub mod bench;
pub mod bless;
pub mod cache;
pub mod cmd;
pub mod daemon;
pub mod demo;
pub mod job;
pub mod paths;
pub mod programs;
pub mod setup;
pub mod test;
pub mod vm;
