//! agentwatch: the daemon, the command line, and the library that both are made of.
//!
//! The folders are the stages of the data's way, in order: see `ARCHITECTURE.md`.

pub mod adopt;
pub mod agents;
pub mod control;
pub mod event;
pub mod exit;
pub mod matcher;
pub mod paths;
pub mod policy;
