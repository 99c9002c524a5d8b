//! agentwatch: the daemon, the command line, and the library that both are made of.
//!
//! The folders are the stages of the data's way, in order: see `ARCHITECTURE.md`.

pub mod adopt;
pub mod agents;
pub mod attribution;
pub mod blame;
pub mod calls;
pub mod cli;
pub mod control;
pub mod daemon;
pub mod decode;
pub mod event;
pub mod exit;
pub mod fold;
pub mod intent;
pub mod kernel;
pub mod log;
pub mod matcher;
pub mod memory;
pub mod names;
pub mod otlp;
pub mod output;
pub mod paths;
pub mod places;
pub mod policy;
pub mod query;
pub mod selftest;
pub mod slo;
pub mod written;
