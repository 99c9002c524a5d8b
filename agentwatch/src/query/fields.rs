//! The fields that an expression can name.

/// All fields of events, with dots between the levels, in the order in which they are written.
pub const FIELDS: &[&str] = &[
    "time",
    "seq",
    "host",
    "boot_id",
    "kind",
    "op",
    "agent",
    "owner",
    "session",
    "parent_session",
    "attribution",
    "process.pid",
    "process.tid",
    "process.start_time",
    "process.ppid",
    "process.executable.path",
    "process.executable.path_encoding",
    "process.command_args",
    "process.command_args_encoding",
    "process.command_args_truncated",
    "process.uid",
    "process.cwd",
    "process.cwd_encoding",
    "process.container.id",
    "file.path",
    "file.path_encoding",
    "file.path_truncated",
    "file.root",
    "file.container_path",
    "file.container_path_encoding",
    "file.path_to",
    "file.path_to_encoding",
    "file.argument",
    "file.argument_encoding",
    "file.deleted",
    "file.device",
    "file.inode",
    "file.flags",
    "file.mode",
    "file.uid",
    "file.gid",
    "file.size",
    "network.transport",
    "network.type",
    "network.peer.address",
    "network.peer.address_encoding",
    "network.peer.port",
    "network.peer.name",
    "network.local.address",
    "network.local.address_encoding",
    "network.local.port",
    "guard.act",
    "guard.detail",
    "guard.pid",
    "guard.start_time",
    "cause.path",
    "cause.path_encoding",
    "cause.by",
    "cause.others",
    "cause.session",
    "cause.agent",
    "cause.owner",
    "cause.tool_call.id",
    "cause.tool_call.name",
    "cause.tool_call.by",
    "cause.prompt_id",
    "cause.intent",
    "cause.policy.version",
    "cause.policy.hash",
    "cause.rule",
    "cause.time",
    "cause.seq",
    "child.pid",
    "child.start_time",
    "child.namespace_pid",
    "exit.code",
    "exit.signal",
    "loss.kind",
    "loss.reason",
    "loss.count",
    "command",
    "verdict",
    "rule",
    "reason",
    "policy.version",
    "policy.hash",
    "intent.id",
    "intent.alignment",
    "intent.check",
    "tool_call.id",
    "tool_call.name",
    "tool_call.parent",
    "tool_call.by",
    "tool_call.input",
    "prompt_id",
    "prompt",
    "outcome.reported",
    "outcome.output",
    "outcome.operations",
    "outcome.writes",
    "outcome.denied",
    "span.trace_id",
    "span.id",
    "span.parent",
    "span.start",
    "span.end",
    "span.conversation",
    "span.error",
    "context.source",
    "context.documents",
    "context.count",
    "errno",
    "count",
    "time_last",
];

/// Fields that hold paths, so that `*` in a glob stays inside a component.
const PATHS: &[&str] = &[
    "process.executable.path",
    "process.cwd",
    "file.path",
    "file.path_to",
    "file.container_path",
    "cause.path",
];

/// How alike a name must be to be suggested, from 0 to 1.
const ALIKE: f64 = 0.7;

pub(super) fn holds_path(name: &str) -> bool {
    PATHS.contains(&name)
}

/// A sentence about a name that no event has. The name of a group of fields is one, too.
pub(super) fn check(name: &str) -> Result<(), String> {
    let within =
        |field: &&str| field.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    if FIELDS.iter().any(within) {
        return Ok(());
    }
    let ends_so = |field: &&&str| field.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
    let alike = || {
        let scored = FIELDS.iter().map(|field| (strsim::jaro_winkler(field, name), field));
        scored.filter(|(score, _)| *score > ALIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, field)| field)
    };
    let hint = FIELDS.iter().find(ends_so).or_else(alike).map(|field| format!(": did you mean `{field}`?"));
    Err(format!("no event has a field `{name}`{}", hint.unwrap_or_default()))
}
