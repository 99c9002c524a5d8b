//! How a failed command ends: one sentence, and the exit code that the contract promises.

use crate::control::{ClientError, RunError};
use crate::daemon::StartError;
use crate::exit;
use crate::kernel::KernelError;
use crate::log::LogError;
use crate::output::escape::escape;
use crate::policy::Problems;

use super::{exec::ExecError, intent::IntentError};

/// Refusals of the daemon that have a line for each thing that is refused.
const SEVERAL_LINES: [&str; 2] = ["bad_policy", "forbidden_plan"];

/// Writes what went wrong to the standard error; gives the exit code.
#[must_use]
pub fn report(error: &anyhow::Error) -> u8 {
    // Problems of a policy are several lines, safe for a terminal already. The stages' sentences name their
    // causes themselves; they hold texts of users and of processes.
    match (problems(error), several_lines(error)) {
        (Some(problems), _) => eprintln!("{problems}"),
        (None, Some(lines)) => lines.lines().for_each(|line| eprintln!("{}", escape(line))),
        (None, None) => eprintln!("agentwatch: {}", escape(&error.to_string())),
    }
    exit_code(error)
}

/// What the daemon says over several lines, if that is what went wrong: a policy or a plan that it refuses.
fn several_lines(error: &anyhow::Error) -> Option<&str> {
    error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(ClientError::Refused(view)) if SEVERAL_LINES.contains(&view.code.as_str()) => {
            Some(view.error.as_str())
        }
        _ => None,
    })
}

/// The problems of a policy, if that is what went wrong.
fn problems(error: &anyhow::Error) -> Option<&Problems> {
    error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(StartError::Policy(problems)) => Some(problems),
        _ => cause.downcast_ref(),
    })
}

/// The exit code of the first error in the chain that has one, else [`exit::FAILED`].
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let known = |cause: &(dyn std::error::Error + 'static)| {
        (cause.downcast_ref().map(ClientError::exit_code))
            .or_else(|| cause.downcast_ref().map(ExecError::exit_code))
            .or_else(|| cause.downcast_ref().map(IntentError::exit_code))
            .or_else(|| cause.downcast_ref().map(RunError::exit_code))
            .or_else(|| cause.downcast_ref().map(StartError::exit_code))
            .or_else(|| cause.downcast_ref::<Problems>().map(|_| exit::BAD_POLICY))
            .or_else(|| cause.downcast_ref().map(LogError::exit_code))
            .or_else(|| cause.downcast_ref().map(KernelError::exit_code))
    };
    error.chain().find_map(known).unwrap_or(exit::FAILED)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_code_is_found_behind_context() {
        let wrapped =
            Err::<(), _>(ExecError::NotFound { program: "x".into() }).context("while trying").unwrap_err();
        assert_eq!(exit_code(&wrapped), 127);
        assert_eq!(exit_code(&RunError::AnotherRuns { pid: None }.into()), exit::FAILED);
        assert_eq!(exit_code(&anyhow::anyhow!("something else")), exit::FAILED);
        for error in
            [Problems(Vec::new()).into(), anyhow::Error::from(StartError::Policy(Problems(Vec::new())))]
        {
            assert_eq!(exit_code(&error), exit::BAD_POLICY);
            assert!(problems(&error).is_some());
        }
        let locked = || LogError::Locked { path: "/s".into(), pid: None };
        let state = |kind: std::io::ErrorKind| LogError::State { path: "/s".into(), source: kind.into() };
        for (error, code) in [
            (locked(), exit::FAILED),
            (state(std::io::ErrorKind::ReadOnlyFilesystem), exit::FAILED),
            (state(std::io::ErrorKind::StorageFull), exit::FAILED),
            (state(std::io::ErrorKind::PermissionDenied), exit::NOT_ALLOWED),
        ] {
            assert_eq!(exit_code(&error.into()), code);
        }
        assert_eq!(exit_code(&StartError::Log(locked()).into()), exit::FAILED);
        assert_eq!(exit_code(&KernelError::NotRoot.into()), exit::NOT_ALLOWED);
        assert_eq!(exit_code(&StartError::Kernel(KernelError::AnotherRuns).into()), exit::FAILED);
        assert_eq!(exit_code(&StartError::Kernel(KernelError::NotRoot).into()), exit::NOT_ALLOWED);
        let socket = "/run/agentwatch/control.sock".into();
        assert_eq!(exit_code(&ClientError::NoPermission { socket }.into()), exit::NOT_ALLOWED);
    }
}
