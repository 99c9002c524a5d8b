//! A program that does what others ask for, as container engines do: it is known by the name under which it is started.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use clap::Subcommand;

#[derive(Subcommand)]
pub enum Act {
    /// Listens, and gives what it reads to a shell, or to another one
    Delegate {
        /// Where it listens
        socket: PathBuf,
        /// Where another one listens, to which it passes everything on by a connection that it keeps
        #[arg(long)]
        to: Option<PathBuf>,
    },
    /// Says something to one of these, and waits for the answer
    Ask {
        /// Where it listens
        socket: PathBuf,
        /// What it is asked to do: a command for a shell
        command: String,
    },
}

impl Act {
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Delegate { socket, to } => serve(socket, to.as_deref()),
            Self::Ask { socket, command } => ask(&mut connected(socket)?, command),
        }
    }
}

fn connected(socket: &Path) -> Result<UnixStream> {
    UnixStream::connect(socket).with_context(|| format!("cannot connect to `{}`", socket.display()))
}

/// A command is a line, and so is the answer.
fn ask(stream: &mut UnixStream, command: &str) -> Result<()> {
    stream.write_all(format!("{command}\n").as_bytes()).context("cannot ask")?;
    line(stream)?.context("no answer")?;
    Ok(())
}

/// A line; nothing where the other side has gone.
fn line(stream: &mut UnixStream) -> Result<Option<String>> {
    let mut text = Vec::new();
    loop {
        let mut byte = [0];
        if stream.read(&mut byte).context("cannot read")? == 0 {
            return Ok(None);
        }
        if byte == *b"\n" {
            return String::from_utf8(text).map(Some).context("what is asked is not UTF-8");
        }
        text.extend(byte);
    }
}

fn serve(socket: &Path, to: Option<&Path>) -> Result<()> {
    let mut other = to.map(connected).transpose()?;
    let listener = UnixListener::bind(socket).context("cannot listen")?;
    for stream in listener.incoming() {
        let mut stream = stream.context("cannot accept")?;
        // One connection after the other, each for as long as it stays open.
        while let Some(command) = line(&mut stream)? {
            match &mut other {
                Some(other) => ask(other, &command)?,
                None => drop(Command::new("/bin/sh").args(["-c", &command]).stdin(Stdio::null()).status()?),
            }
            stream.write_all(b"done\n").context("cannot answer")?;
        }
    }
    Ok(())
}
