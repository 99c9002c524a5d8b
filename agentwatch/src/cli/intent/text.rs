//! What was declared, for people.

use crate::{
    cli::table::{Column, Set, table},
    control::intent::{IntentView, IntentsView},
    output::escape::escape,
};

const COLUMNS: [Column; 9] = [
    Column { title: "INTENT", set: Set::Left },
    Column { title: "SESSION", set: Set::Left },
    Column { title: "STATE", set: Set::Left },
    Column { title: "BY", set: Set::Left },
    Column { title: "EXPIRES", set: Set::Left },
    Column { title: "ALIGNED", set: Set::Right },
    Column { title: "OUTSIDE", set: Set::Right },
    Column { title: "CHECKS", set: Set::Left },
    Column { title: "TASK", set: Set::Cut },
];

pub(super) fn list(view: &IntentsView, all: bool, width: Option<usize>) -> String {
    if view.intents.is_empty() {
        let none = if all {
            "nothing was declared\n"
        } else {
            "nothing that was declared counts now: `agentwatch intent list --all` shows what is over\n"
        };
        return none.to_owned();
    }
    let row = |one: &IntentView| {
        vec![
            one.id.to_string(),
            escape(&one.session).into_owned(),
            one.state.word().to_owned(),
            format!("{}{}", one.declared_by.word(), if one.binding { ", binding" } else { "" }),
            one.expires.clone(),
            one.aligned.to_string(),
            one.outside.to_string(),
            checks(one),
            one.task
                .as_deref()
                .or(one.prompt.as_deref())
                .map_or_else(|| "-".to_owned(), |text| escape(text).into_owned()),
        ]
    };
    table(&COLUMNS, &view.intents.iter().map(row).collect::<Vec<_>>(), width)
}

/// How many checks failed, or else passed.
fn checks(view: &IntentView) -> String {
    match (view.checks.len(), view.checks.iter().filter(|check| !check.passed).count()) {
        (0, _) => "-".to_owned(),
        (all, 0) => format!("{all} passed"),
        (_, failed) => format!("{failed} failed"),
    }
}

pub(super) fn show(view: &IntentView) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| text.push_str(&format!("{label:<9} {}\n", escape(value)));
    line("intent", &view.id);
    line("session", &view.session);
    let closed = view.closed.as_ref().map(|closed| format!(", closed {closed}")).unwrap_or_default();
    line("state", &format!("{}, until {}{closed}", view.state.word(), view.expires));
    if view.binding {
        line("binding", "what it does not cover is refused while it is in force");
    }
    let pid = view.pid.map(|pid| format!("process {pid} of ")).unwrap_or_default();
    line("declared", &format!("{} by {} ({pid}user {})", view.declared, view.declared_by.word(), view.uid));
    for (label, value) in [("task", &view.task), ("prompt", &view.prompt)] {
        value.iter().for_each(|value| line(label, value));
    }
    if let Some(tool) = &view.tool {
        line(
            "tool",
            &[tool.name.as_deref(), tool.id.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" "),
        );
    }
    if !view.context.is_empty() {
        line("context", &view.context.join(", "));
    }
    for (op, patterns) in &view.scope {
        line(op.name(), &patterns.join(", "));
    }
    for step in &view.plan {
        line("plan", &format!("{}: {}, {}", step.step, step.verdict.name(), step.reason));
    }
    line("events", &format!("{} aligned, {} outside", view.aligned, view.outside));
    for check in &view.checks {
        let note = check.note.as_deref().map(|note| format!(": {note}")).unwrap_or_default();
        let found = if check.passed { "passed" } else { "failed" };
        line("check", &format!("{found}, {} by {}{note}", check.time, check.checked_by.word()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::samples;

    #[test]
    fn what_was_declared_is_shown_without_harm() {
        let text = show(&samples::intent());
        assert_eq!(
            text,
            "intent    int-7f3k2q\nsession   coding-7f3k2q\nstate     in-force, until 2026-05-04T09:00:00Z\n\
             declared  2026-05-04T08:00:00Z by agent (process 1234 of user 1000)\ntask      rotate \\x1b[2J\n\
             tool      Bash toolu_01\ncontext   doc-17\nwrite     /var/log/app\n\
             plan      write /var/log/app: allowed, no rule matches, and the agent has no default\nevents    7 aligned, 1 outside\n\
             check     failed, 2026-05-04T09:10:00Z by operator: 3 rows \\x1b are missing\n"
        );
        let listed = list(&IntentsView { intents: vec![samples::intent()] }, false, None);
        assert!(
            listed.contains("int-7f3k2q  coding-7f3k2q  in-force  agent") && !listed.contains('\x1b'),
            "{listed}"
        );
        assert!(list(&IntentsView::default(), false, None).contains("--all"));
    }
}
