//! `agentwatch exec`: a command as a session of an agent, from its first instruction.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use super::intent;
use crate::control::Client;
use crate::exit;
use crate::paths::Paths;

/// Run a command as a session of an agent, from its first instruction
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch exec --agent coding -- claude --resume
  agentwatch exec --agent ci -- make deploy
  agentwatch exec --agent coding -- sh -c 'npm ci && npm test'
  agentwatch exec --agent coding --intent task.yaml -- claude -p 'tidy up'

The process of `agentwatch exec` first becomes a session and then the command itself, so
that its exit status, signals and terminal are the command's own. Everybody may use it.

If the daemon cannot be reached or refuses, the command is NOT run: what was meant to be
watched never runs unwatched.

Exit codes: the command's own; 127 the command was not found, 126 it cannot be executed;
1 the daemon refused, 2 no such agent, 5 the daemon is not reachable, 6 not possible from here.")]
pub struct ExecArgs {
    /// Name of the agent, of the policy or the built-in list
    #[arg(long, value_name = "NAME")]
    pub agent: String,
    /// What the session is about to do: see `agentwatch intent declare --file`
    #[arg(long, value_name = "FILE")]
    pub intent: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Why the command does not run, where that is not the daemon's doing.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// No command was given.
    #[error(
        "there is no command to run: write it after `--`, as in `agentwatch exec --agent coding -- claude`"
    )]
    NoCommand,
    /// There is no such program.
    #[error("cannot run `{}`: it was not found; check the name and `PATH`", program.display())]
    NotFound {
        /// As given.
        program: OsString,
    },
    /// There is one, and the kernel does not start it.
    #[error("cannot run `{}`: {source}", program.display())]
    NotExecutable {
        /// As given.
        program: OsString,
        /// Why not.
        source: io::Error,
    },
}

impl ExecError {
    /// The exit code, for a missing or unusable command the one that shells and `env` give.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::NoCommand => exit::USAGE,
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
        }
    }
}

/// Becomes the command. Comes back only where that is not possible.
///
/// # Errors
/// The daemon does not make this process a session, or the command cannot be started.
pub fn run(args: &ExecArgs, paths: &Paths) -> anyhow::Result<u8> {
    // What cannot be read is told before anything begins.
    let intent = args.intent.as_deref().map(intent::read_file).transpose()?;
    let (program, arguments) = args.command.split_first().ok_or(ExecError::NoCommand)?;
    // From here on everything belongs to the session, a failing search for the program included.
    let client = Client::new(paths);
    client.launch(&args.agent)?;
    if let Some(intent) = intent {
        client.declare(&intent)?;
    }
    let source = Command::new(program).args(arguments).exec();
    Err(failed(program, source).into())
}

/// Why a program does not start.
pub(super) fn failed(program: &OsStr, source: io::Error) -> ExecError {
    let program = program.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => ExecError::NotFound { program },
        _ => ExecError::NotExecutable { program, source },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Output;

    use clap::Parser;

    use super::super::failure;
    use super::*;
    use crate::control::tests::{Daemon, Manner};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        exec: ExecArgs,
        #[command(flatten)]
        paths: Paths,
    }

    /// Environment variable with the command line of [`exec_in_a_process_of_its_own`], one word a line.
    const LINE: &str = "AGENTWATCH_TEST_EXEC";

    /// No test: the other tests start it as a process, because `exec` replaces the one that it runs in.
    #[test]
    #[ignore = "other tests start it"]
    fn exec_in_a_process_of_its_own() {
        let line = std::env::var(LINE).expect("started by another test");
        let line = Line::parse_from(line.lines());
        let error = run(&line.exec, &line.paths).expect_err("comes back only with an error");
        std::process::exit(failure::report(&error).into());
    }

    /// Runs `agentwatch exec` in a process; gives its id too.
    fn exec(run_dir: &Path, words: &[&str]) -> (u32, Output) {
        let line = [&["exec", "--run-dir", run_dir.to_str().unwrap()], words].concat().join("\n");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "cli::exec::tests::exec_in_a_process_of_its_own"])
            .env(LINE, line)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        (child.id(), child.wait_with_output().unwrap())
    }

    fn sentence(output: &Output) -> String {
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    #[test]
    fn the_command_takes_the_place_of_the_process_that_was_made_a_session() {
        let daemon = Daemon::start(Manner::Answers);
        let script = "echo \"pid $$ $1\"; exit 42";
        let (pid, output) =
            exec(&daemon.paths.run, &["--agent", "coding", "--", "sh", "-c", script, "x", "a b"]);
        assert_eq!(output.status.code(), Some(42), "{}", sentence(&output));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.ends_with(&format!("pid {pid} a b\n")), "{said}");
        let launch = daemon.launches.try_recv().unwrap();
        assert_eq!((launch.agent.as_str(), launch.pid), ("coding", pid));
    }

    #[test]
    fn a_signal_that_ends_the_command_is_its_own() {
        use std::os::unix::process::ExitStatusExt as _;
        let daemon = Daemon::start(Manner::Answers);
        let (_, output) = exec(&daemon.paths.run, &["--agent", "coding", "--", "sh", "-c", "kill -TERM $$"]);
        assert_eq!(output.status.signal(), Some(15), "{}", sentence(&output));
    }

    #[test]
    fn a_command_that_cannot_run_ends_as_in_a_shell() {
        let daemon = Daemon::start(Manner::Answers);
        let ends = |program: &str| {
            let (_, output) = exec(&daemon.paths.run, &["--agent", "coding", "--", program]);
            assert!(
                sentence(&output).contains(&format!("agentwatch: cannot run `{program}`: ")),
                "{output:?}"
            );
            output.status.code()
        };
        assert_eq!(ends("agentwatch-no-such-program"), Some(127));
        assert_eq!(ends("/no/such/program"), Some(127));
        assert_eq!(ends("/etc/passwd"), Some(126));
        assert_eq!(ends("/"), Some(126));
    }

    #[test]
    fn without_a_daemon_or_an_agent_the_command_does_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("it-ran");
        let touch = ["--", "touch", trace.to_str().unwrap()];
        let (_, output) = exec(folder.path(), &[&["--agent", "coding"][..], &touch].concat());
        assert_eq!(output.status.code(), Some(exit::UNREACHABLE.into()));
        assert!(sentence(&output).contains("start it with `agentwatch run`"), "{output:?}");

        let daemon = Daemon::start(Manner::Answers);
        let (_, output) = exec(&daemon.paths.run, &[&["--agent", "nobody"][..], &touch].concat());
        assert_eq!(output.status.code(), Some(exit::USAGE.into()));
        assert!(
            sentence(&output).contains("no agent is named `nobody`: there are `aider`, `coding`"),
            "{output:?}"
        );

        let intent = ["--agent", "coding", "--intent", "no-such-plan.yaml"];
        let (_, output) = exec(&daemon.paths.run, &[&intent[..], &touch].concat());
        assert_eq!(output.status.code(), Some(exit::USAGE.into()));
        assert!(sentence(&output).contains("cannot read `no-such-plan.yaml`"), "{output:?}");

        let silent = Daemon::start(Manner::KeepsSilent);
        let (_, output) = exec(&silent.paths.run, &[&["--agent", "coding"][..], &touch].concat());
        assert_eq!(output.status.code(), Some(exit::UNREACHABLE.into()));
        assert!(!trace.exists());
    }
}
