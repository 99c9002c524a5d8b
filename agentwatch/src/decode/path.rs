//! Paths as the kernel's walk gives them.

use agentwatch_common::record::{PathDesc, path_flag};

use super::bytes::{Cursor, DecodeError};

/// A text of a record's tail with what the kernel says about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathText<'a> {
    /// What it is worth.
    pub desc: PathDesc,
    /// The bytes: names with a NUL after each, the deepest first, or a text as given.
    pub bytes: &'a [u8],
}

impl<'a> PathText<'a> {
    /// Whether a flag of [`path_flag`] is set.
    #[must_use]
    pub const fn has(&self, flag: u16) -> bool {
        self.desc.flags & flag != 0
    }

    /// Whether names are missing at the front.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.has(path_flag::TRUNCATED) || self.has(path_flag::FAULT)
    }

    /// The path from the root on: absolute, or without its front where that is missing.
    #[must_use]
    pub fn path(&self) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.bytes.len() + 1);
        self.append_path(&mut path);
        path
    }

    /// As [`PathText::path`], into a buffer.
    pub fn append_path(&self, path: &mut Vec<u8>) {
        let names = self.bytes.strip_suffix(&[0]).unwrap_or(self.bytes);
        if names.is_empty() {
            path.push(b'/');
            return;
        }
        let mut first = self.is_cut();
        for name in names.rsplit(|byte| *byte == 0) {
            if !first {
                path.push(b'/');
            }
            first = false;
            path.extend_from_slice(name);
        }
    }

    /// A text that is no path, without the NUL that ends it.
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        self.bytes.strip_suffix(&[0]).unwrap_or(self.bytes)
    }
}

/// Takes what the kernel says about a path.
pub fn desc(cursor: &mut Cursor<'_>) -> Result<PathDesc, DecodeError> {
    Ok(PathDesc {
        len: cursor.u32()?,
        flags: cursor.u16()?,
        components: cursor.u16()?,
        mount_ns: cursor.u32()?,
        dev: cursor.u32()?,
    })
}

/// Takes a path's bytes from the tail.
pub fn text<'a>(tail: &mut Cursor<'a>, desc: PathDesc) -> Result<PathText<'a>, DecodeError> {
    Ok(PathText { desc, bytes: tail.take(desc.len as usize)? })
}
