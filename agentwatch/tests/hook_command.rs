//! `agentwatch hook claude-code` as a harness calls it, without a daemon.
#![expect(clippy::unwrap_used, reason = "a test that finds nothing must fail")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Calls a hook with what a harness gives it.
fn called(harness: &str, words: &[&str], input: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentwatch"));
    command.args(["hook", harness]).args(words).env("AGENTWATCH_RUN", folder.path());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have ended before all is read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

const CLAUDE_BEGIN: &str = r#"{"hook_event_name": "PreToolUse", "tool_use_id": "t", "tool_name": "Bash", "tool_input": {"command": "ls"}}"#;
const CLAUDE_END: &str = r#"{"hook_event_name": "PostToolUse", "tool_use_id": "t", "tool_name": "Bash", "tool_input": {}, "tool_response": {}}"#;
const GEMINI_BEGIN: &str = r#"{"hook_event_name": "BeforeTool", "session_id": "s", "tool_name": "run_shell_command", "tool_input": {"command": "ls"}}"#;

#[test]
fn what_cannot_be_told_breaks_nothing_unless_it_must_be() {
    for (harness, input) in [
        ("claude-code", CLAUDE_BEGIN),
        ("codex", CLAUDE_BEGIN),
        ("gemini", GEMINI_BEGIN),
        ("claude-code", "{"),
        ("claude-code", r#"{"hook_event_name": "UserPromptSubmit", "prompt": "tidy up"}"#),
    ] {
        for (words, code) in [(&[][..], 0), (&["--required"][..], 2)] {
            let output = called(harness, words, input);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{harness} {words:?} {input}: {said}");
            assert!(said.starts_with("agentwatch: ") && output.stdout.is_empty(), "{said}");
            assert_eq!(said.contains("This was stopped"), code == 2, "{said}");
        }
    }
}

#[test]
fn what_is_over_is_not_stopped() {
    for input in [CLAUDE_END, r#"{"hook_event_name": "Stop"}"#, r#"{"hook_event_name": "Unknown"}"#] {
        let output = called("claude-code", &["--required"], input);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
