//! `agentwatch doctor`: what this kernel lets agentwatch see.

use clap::Args;

use super::print::{self, Format};
use crate::{
    control::Client,
    exit,
    kernel::{self, State},
    paths::Paths,
};

/// Say what this kernel lets agentwatch see, and what it does not
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch doctor
  agentwatch doctor -o json | jq '.[] | select(.state != \"full\")'

Asks the daemon that runs; without one it loads the kernel programs, looks which the kernel takes, and removes
them again. Needs root. Exit codes: 0 everything works, 3 something is degraded or absent, 6 the kernel or
the privileges do not allow anything.")]
pub struct DoctorArgs {
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// One line of the answer.
#[derive(serde::Serialize)]
struct Line {
    name: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The kernel or the privileges do not allow anything.
pub fn run(args: &DoctorArgs, paths: &Paths) -> anyhow::Result<u8> {
    let lines = match Client::new(paths).status() {
        Ok(view) => view.abilities.into_iter().map(of_daemon).collect(),
        Err(_) => probe()?,
    };
    let text = match args.output {
        Format::Json => print::json(&lines, print::to_terminal())?,
        Format::Text => lines.iter().map(text).collect(),
    };
    print::print(&text)?;
    let all_full = lines.iter().all(|line| line.state == State::Full);
    Ok(if all_full { exit::DONE } else { exit::VIOLATION })
}

fn of_daemon(view: crate::control::state::AbilityView) -> Line {
    use crate::control::state::AbilityState;
    let state = match view.state {
        AbilityState::Full => State::Full,
        AbilityState::Degraded => State::Degraded,
        AbilityState::Absent => State::Absent,
    };
    Line { name: view.name.to_string(), state, reason: view.reason }
}

/// Loads everything and removes it again.
fn probe() -> anyhow::Result<Vec<Line>> {
    let kernel = kernel::attach()?;
    let taken_over = kernel.taken_over;
    let abilities = kernel.abilities.0;
    if !taken_over {
        kernel::detach();
    }
    let line =
        |ability: kernel::Ability| Line { name: ability.name, state: ability.state, reason: ability.reason };
    Ok(abilities.into_iter().map(line).collect())
}

fn text(line: &Line) -> String {
    let state = match line.state {
        State::Full => "full",
        State::Degraded => "degraded",
        State::Absent => "absent",
    };
    let reason = line.reason.as_deref().map_or_else(String::new, |reason| format!("  {reason}"));
    format!("{state:<9} {}{}\n", line.name, crate::output::escape::escape(&reason))
}
