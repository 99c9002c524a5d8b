//! `agentwatch policy apply`: bring a policy into force.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::print::{self, Format};
use crate::control::Client;
use crate::control::policy::{AppliedView, PolicyFile};
use crate::exit;
use crate::output::escape::escape;
use crate::paths::Paths;
use crate::policy::{Policy, Severity, Source, enforceable};

/// Bring a policy into force, whole and at once
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch policy apply policy.yaml
  agentwatch policy apply policy.d/               a folder of files is one policy
  agentwatch policy apply -o json policy.yaml | jq .version

The policy is checked here and by the daemon. A bad one, and one that this kernel cannot carry out, leaves
the old one in force.

What was done last counts: the policy stays in force, over restarts of the daemon too, until the files that
`agentwatch run --policy` names change, or SIGHUP asks for them. Without --policy it stays until another one
is applied; one that says only `version: 1` takes all rules away.

Needs root and a running daemon. Exit codes: 0 it is in force, 1 failed, 4 it is refused, 5 the daemon is
not reachable, 6 this kernel cannot carry it out, or no permission.")]
pub struct ApplyArgs {
    /// The policy: a file, or a folder of files read in the order of their names
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The policy is refused, the daemon cannot be asked, or the answer cannot be written.
pub fn run(args: &ApplyArgs, paths: &Paths) -> anyhow::Result<u8> {
    let (policy, warnings) = super::read(&args.file)?;
    // What of it is an error depends on what the daemon was told at its start: it answers that.
    let more = enforceable(&policy).into_iter().filter(|one| one.code.severity() == Severity::Warning);
    for warning in warnings.into_iter().chain(more) {
        eprintln!("{warning}\n");
    }
    let view = Client::new(paths).apply(files(&policy))?;
    let text = match args.output {
        Format::Json => print::json(&view, print::to_terminal())?,
        Format::Text => text(&view),
    };
    print::print(&text)?;
    Ok(exit::DONE)
}

/// The policy's files, by names that mean the same to the daemon.
fn files(policy: &Policy) -> Vec<PolicyFile> {
    let name = |name: &str| {
        std::path::absolute(Path::new(name))
            .map_or_else(|_| name.to_owned(), |path| path.to_string_lossy().into_owned())
    };
    let file = |source: &Source| PolicyFile { name: name(&source.name), text: source.text.clone() };
    policy.sources.iter().map(file).collect()
}

fn text(view: &AppliedView) -> String {
    let until = match &view.path {
        Some(path) => {
            let path = escape(path);
            format!("until `{path}` changes, or SIGHUP asks for it")
        }
        None => "until another one is applied".to_owned(),
    };
    format!(
        "version {} ({}) is in force, over restarts of the daemon too (`{}`), {until}\n",
        view.version,
        escape(&view.hash),
        escape(&view.kept),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::samples;

    #[test]
    fn it_says_how_long_the_policy_stays() {
        let view = samples::applied();
        let hash = &view.hash;
        let wanted = format!(
            "version 4 ({hash}) is in force, over restarts of the daemon too (`/var/lib/agentwatch/applied.json`), \
             until `/etc/agentwatch.yaml` changes, or SIGHUP asks for it\n"
        );
        assert_eq!(text(&view), wanted);
        assert!(text(&AppliedView { path: None, ..view }).ends_with("until another one is applied\n"));
    }
}
