//! Tests that begin with nothing of agentwatch in the kernel, and leave nothing there.
//!
//! Each of their daemons has the kernel check all programs, for as long as many tests take. The name makes them the last to
//! run: before and between other tests they would have the shared daemon's programs checked anew as well.

mod adoption;
mod older;
mod selftest;
mod start;
