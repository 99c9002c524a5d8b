//! Carries the command's output to the host.
//!
//! The command gets pipes, not the ports themselves: a port can be open only once, and programs
//! do open `/dev/stderr` again.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::os::fd::OwnedFd;
use std::thread::{JoinHandle, spawn};

use rustix::event::{PollFd, PollFlags, poll};

/// What may still be carried after the command's end: a background process that goes on writing
/// must not keep the machine alive. A pipe holds at most this much unless somebody enlarged it.
const BYTES_AFTER_THE_END: usize = 1 << 20;

/// One stream from the command to the host.
pub struct Pump {
    thread: JoinHandle<()>,
    /// Closed when the command has ended.
    running: PipeWriter,
}

impl Pump {
    /// Starts to carry; gives the end that the command writes to.
    pub fn start(port: File) -> std::io::Result<(Self, OwnedFd)> {
        let (source, sink) = pipe()?;
        let (ended, running) = pipe()?;
        let thread = spawn(move || carry(source, &ended, port));
        Ok((Self { thread, running }, sink.into()))
    }

    /// Carries what the command left in the pipe, and ends.
    pub fn finish(self) {
        drop(self.running);
        // The thread does not panic: its result holds nothing.
        let _ = self.thread.join();
    }
}

fn carry(mut source: PipeReader, ended: &PipeReader, mut port: File) {
    let mut buffer = vec![0; 1 << 16];
    let mut left = BYTES_AFTER_THE_END;
    while let Some(after_end) = wait(&source, ended) {
        let Ok(count @ 1..) = source.read(&mut buffer) else { return };
        if port.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
            return;
        }
        if after_end {
            match left.checked_sub(count) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }
}

/// Waits until there is something to read, and says whether the command has ended by then.
/// `None` if it has and nothing is left.
fn wait(source: &PipeReader, ended: &PipeReader) -> Option<bool> {
    let mut both = [PollFd::new(source, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
    while poll(&mut both, None).is_err() {}
    let [source, ended] = both.map(|one| !one.revents().is_empty());
    source.then_some(ended)
}
