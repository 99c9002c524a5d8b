//! `agentwatch policy check`: whether a policy can be used.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::view::{ProblemView, counted};
use crate::cli::print::{self, Format};
use crate::exit;
use crate::policy::{Diagnostic, Policy, Severity, lacks_room};

/// Check a policy without a daemon: all its problems at once, each with its line
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch policy check /etc/agentwatch.yaml
  agentwatch policy check policy.d/               a folder of files is one policy
  agentwatch policy check --strict policy.yaml    in CI: warnings count too
  agentwatch policy check -o json policy.yaml | jq -r '.problems[].code'

Errors refuse the policy, as does a kernel table without room for it. Warnings tell of rules that never
decide, of what this version does not enforce, and of protection that is only a speed bump. Each problem
has a stable code.

Exit codes: 0 it can be used, 2 usage, 3 there are warnings and --strict was given, 4 it is refused.")]
pub struct CheckArgs {
    /// The policy: a file, or a folder of files read in the order of their names
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Take warnings for a failure
    #[arg(long)]
    pub strict: bool,
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// The answer for programs.
#[derive(Serialize)]
struct CheckView<'a> {
    /// Whether the policy can be used.
    usable: bool,
    problems: Vec<ProblemView<'a>>,
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The answer cannot be written.
pub fn run(args: &CheckArgs) -> anyhow::Result<u8> {
    let (policy, problems) = match super::read(&args.file) {
        Ok((policy, mut warnings)) => match lacks_room(&policy) {
            Some(problem) => {
                warnings.push(problem);
                (None, warnings)
            }
            None => (Some(policy), warnings),
        },
        Err(problems) => (None, problems.0),
    };
    let text = match args.output {
        Format::Json => {
            let problems = problems.iter().map(ProblemView::from).collect();
            print::json(&CheckView { usable: policy.is_some(), problems }, print::to_terminal())?
        }
        Format::Text => text(policy.as_ref(), &problems),
    };
    print::print(&text)?;
    Ok(match policy {
        None => exit::BAD_POLICY,
        Some(_) if args.strict && !problems.is_empty() => exit::VIOLATION,
        Some(_) => exit::DONE,
    })
}

fn text(policy: Option<&Policy>, problems: &[Diagnostic]) -> String {
    let mut text: String = problems.iter().map(|problem| format!("{problem}\n\n")).collect();
    let errors = problems.iter().filter(|problem| problem.code.severity() == Severity::Error).count();
    let warnings = counted(problems.len() - errors, "warning");
    match policy {
        None => text.push_str(&format!("refused: {}, {warnings}\n", counted(errors, "error"))),
        Some(policy) => text.push_str(&format!(
            "usable: {}, {}, {}, {}, {}; {warnings}\n",
            counted(policy.agents.len(), "agent"),
            counted(policy.resources.len(), "resource"),
            counted(policy.windows.len(), "window"),
            counted(policy.rules.len(), "rule"),
            counted(policy.cases.len(), "test"),
        )),
    }
    text
}
