//! The policy's text: read from files, turned into a tree whose every node knows its place, with problems
//! that point at the line.

mod diagnostic;
mod source;
mod tree;

pub use self::diagnostic::{Code, Diagnostic, Problems, Severity};
pub use self::source::{FILE_BYTES_MAX, FILES_MAX, Place, Source, read};
pub use self::tree::{DEPTH_MAX, NODES_MAX, Node, Value, parse};
