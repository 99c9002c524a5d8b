//! Types that the kernel programs and the daemon share.
//!
//! Everything here is `repr(C)`, of fixed width, with explicit padding and neither `bool`, `Option` nor
//! enum fields: the two sides are separate compilations, and the kernel's bytes are checked and never
//! transmuted. Sizes and offsets are asserted at compile time. [`ABI`] changes with any change here.
#![no_std]
#![forbid(unsafe_code)]

pub mod answer;
pub mod bound;
pub mod kind;
pub mod limits;
pub mod maps;
pub mod offsets;
pub mod record;
pub mod rules;

/// Version of everything in this crate that crosses the boundary. Each record carries it, and a daemon
/// that finds pinned maps of another version replaces them.
pub const ABI: u16 = 7;
