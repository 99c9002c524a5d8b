//! The `agentwatch` command.
fn main() {}
