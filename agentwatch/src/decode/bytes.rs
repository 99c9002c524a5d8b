//! Reading fixed-width integers from a record.

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than its kind needs.
    #[error("a record of the kernel ends early: {have} bytes, where {need} are needed")]
    Short {
        /// Bytes that there are.
        have: usize,
        /// Bytes that are needed.
        need: usize,
    },
    /// The header's length is not that of the record.
    #[error("a record of the kernel says that it has {said} bytes, and has {have}")]
    Length {
        /// What the header says.
        said: usize,
        /// What there is.
        have: usize,
    },
    /// Written by programs of another build.
    #[error("a record of the kernel is of version {0}, which this agentwatch does not read")]
    Abi(u16),
    /// A kind that this build does not know.
    #[error("a record of the kernel is of unknown kind {0}")]
    Kind(u16),
    /// Session 0 stands for none.
    #[error("a record of the kernel names no session")]
    NoSession,
}

/// Takes integers from the front of a record.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Begins at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Takes `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let short = DecodeError::Short { have: self.rest.len(), need: len };
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| DecodeError::Short { have: taken.len(), need: N })
    }

    /// Takes an integer of one byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Takes an integer of two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Takes an integer of four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Takes an integer of eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}
