//! What the live tests need: a scripted actor, a scripted model server, real agents, and the daemon's harness.

pub mod act;
pub mod agents;
#[cfg(test)]
mod catalogue;
pub mod compare;
pub mod daemon;
pub mod dns;
pub mod gate;
pub mod log;
pub mod model_server;
pub mod policy;
pub mod session;
pub mod tries;
pub mod truth;
mod watchdog;
