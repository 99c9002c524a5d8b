//! Programs started, with arguments that come in several records.

use agentwatch_common::record::args_flag;

use crate::decode::Args;

/// An exec that waits for the rest of its arguments.
#[derive(Debug)]
pub struct Pending {
    /// The record of the exec itself.
    pub record: Vec<u8>,
    /// The arguments so far.
    pub args: Vec<u8>,
    /// Set where some are missing.
    pub truncated: bool,
}

impl Pending {
    /// Begins to wait.
    #[must_use]
    pub fn new(record: &[u8], args: &Args<'_>) -> Self {
        Self {
            record: record.to_vec(),
            args: args.bytes.to_vec(),
            truncated: args.flags & args_flag::FAULT != 0,
        }
    }

    /// Takes more arguments. True when these were the last.
    pub fn take(&mut self, more: &Args<'_>) -> bool {
        if more.offset as usize != self.args.len()
            || more.flags & (args_flag::FAULT | args_flag::TRUNCATED) != 0
        {
            self.truncated = true;
        }
        self.args.extend_from_slice(more.bytes);
        more.flags & args_flag::MORE == 0
    }
}

/// Splits a list of arguments, each ended by a NUL.
pub fn split(args: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let whole = args.strip_suffix(&[0]).unwrap_or(args);
    let count = if args.is_empty() { 0 } else { usize::MAX };
    whole.split(|byte| *byte == 0).take(count)
}

/// The command line as people write it and `run` rules see it, whole: the base name of the program that really runs,
/// then the arguments after the first.
pub fn command_line(program: &[u8], args: &[u8]) -> Vec<u8> {
    let mut line = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
    for arg in split(args).skip(1) {
        line.push(b' ');
        line.extend_from_slice(arg);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_empty_ones() {
        let all = |args: &'static [u8]| split(args).collect::<Vec<_>>();
        assert_eq!(all(b"a\0\0b c\0"), [b"a".as_slice(), b"", b"b c"]);
        assert_eq!(all(b"\0"), [b"".as_slice()]);
        assert!(all(b"").is_empty());
    }
}
