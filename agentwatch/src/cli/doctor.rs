//! `agentwatch doctor`: what this kernel lets agentwatch see and refuse.

use clap::Args;

use super::print::{self, Format};
use crate::{
    control::{
        Client,
        selftest::{SelfTestResult, SelfTestView},
    },
    daemon, exit,
    kernel::{self, State},
    paths::Paths,
    policy::Mode,
};

/// Say what this kernel lets agentwatch see and refuse, and try it
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch doctor
  agentwatch doctor -o json | jq '.[] | select(.state != \"full\")'

Asks the daemon that runs, which tries one forbidden thing of each kind in a session of its own (`self-test of`);
without one it loads the kernel programs, looks which the kernel takes, tries the same, and removes them again.
Needs root. Exit codes: 0 everything works, 3 something is degraded or absent, 6 the kernel or
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
    let client = Client::new(paths);
    let (mut lines, tested) = match client.status() {
        Ok(view) => (view.abilities.into_iter().map(of_daemon).collect(), client.self_test()?),
        Err(_) => probe(paths)?,
    };
    lines.extend(tested.results.into_iter().map(of_self_test));
    let text = match args.output {
        Format::Json => print::json(&lines, print::to_terminal())?,
        Format::Text => lines.iter().map(text).collect(),
    };
    print::print(&text)?;
    if let Some(why) = tested.skipped {
        eprintln!("no self-test: {why}");
    }
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

fn of_self_test(result: SelfTestResult) -> Line {
    let state = if result.proved { State::Full } else { State::Absent };
    Line { name: format!("self-test of {}", result.name), state, reason: result.reason }
}

/// Loads everything, tries it and removes it again.
fn probe(paths: &Paths) -> anyhow::Result<(Vec<Line>, SelfTestView)> {
    let mut kernel = kernel::attach()?;
    let tested = if kernel.taken_over {
        // Its rules are in force, and stay.
        let why = "the kernel programs of a daemon that ended are in force: start `agentwatch run`";
        Ok(SelfTestView { skipped: Some(why.to_owned()), ..SelfTestView::default() })
    } else {
        try_out(&mut kernel, paths)
    };
    if !kernel.taken_over {
        kernel::detach();
    }
    let line =
        |ability: kernel::Ability| Line { name: ability.name, state: ability.state, reason: ability.reason };
    Ok((kernel.abilities.0.into_iter().map(line).collect(), tested?))
}

/// A self-test, where this kernel judges at all.
fn try_out(kernel: &mut kernel::Kernel, paths: &Paths) -> anyhow::Result<SelfTestView> {
    if let Some(lacking) = kernel.abilities.lacking_for_mode(Mode::Recommend, &[]) {
        return Ok(SelfTestView { skipped: Some(lacking), ..SelfTestView::default() });
    }
    Ok(daemon::self_test_alone(kernel, paths)?.view())
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
