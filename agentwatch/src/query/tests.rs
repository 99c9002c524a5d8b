//! What is found, and what is said about what cannot be read.

use jiff::Zoned;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn event() -> Value {
    json!({
        "time": "2026-11-21T03:37:12.123456789Z", "seq": 7, "kind": "file.open", "op": "read",
        "agent": "coding", "session": "coding-7f3k2q", "verdict": "denied",
        "process": {
            "pid": 12, "start_time": 9_007_199_254_740_993_u64, "executable.path": "/usr/bin/git",
            "command_args": ["git", "push", "--force"], "container.id": "c0ffee",
        },
        "file": {"path": "/etc/ssl/private/a key", "inode": 3, "deleted": true},
        "network": {"peer.port": 5432, "peer.address": "10.0.0.1"},
        "command": "git push https://example.com/a --force",
    })
}

fn holds(text: &str) -> bool {
    Expr::parse(text).unwrap_or_else(|error| panic!("{error}")).holds(&event())
}

#[test]
fn expressions_say_what_they_mean() {
    for text in [
        "process.pid == 12",
        "process.pid==12&&seq==7",
        "process.pid != 13",
        "process.pid == 12.0",
        "process.start_time == 9007199254740993",
        "process.start_time != 9007199254740992",
        "network.peer.port >= 1024",
        "network.peer.port < 5433 && network.peer.port > -1",
        "time >= '2026-11-21' && time < \"2026-11-22\"",
        "process.executable.path == \"/usr/bin/git\"",
        "process.container.id == 'c0ffee'",
        "file.deleted",
        "file.deleted == true",
        "has(file.inode) && has(process)",
        "!has(exit)",
        "!(seq == 8)",
        "!!file.deleted",
        "process.command_args == '--force'",
        "process.command_args ~ 'pus*'",
        "!(process.command_args != '--force')",
        "file.path ~ '/etc/**'",
        "file.path ~ '/etc'",
        "file.path !~ '/etc/*'",
        "file.path ~ '/etc/ssl/{public,private}/?\\x20k[a-f]y'",
        "command ~ 'git push*--force*'",
        "network.peer.address ~ '10.0.*'",
        "verdict == 'denied' || exit.code == 1 && exit.code == 2",
        "(verdict == 'denied' || seq == 7) && op == 'read'",
        "exit.code != 0",
        "process.pid != 'twelve'",
    ] {
        assert!(holds(text), "{text}");
    }
    for text in [
        "process.pid == 13",
        "process.pid == 'twelve'",
        "process.pid < '2'",
        "exit.code == 0",
        "exit.code < 1",
        "file.path_truncated",
        "process.pid",
        "process",
        "process == 12",
        "has(exit.code)",
        "file.path ~ '/etc/*'",
        "file.inode ~ '3'",
        "exit.code ~ '*'",
        "file.deleted < true",
        "verdict == 'denied' && !file.deleted",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn a_key_that_holds_dots_is_found_whichever_way_it_is_split() {
    let nested =
        json!({"process": {"executable": {"x": 1}, "executable.path": "/a", "container": {"id": "b"}}});
    for text in ["process.executable.path == '/a'", "process.container.id == 'b'"] {
        assert!(Expr::parse(text).unwrap().holds(&nested), "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_said_with_its_column() {
    let long = format!("{}seq == 1", "!".repeat(80));
    for (text, column, message) in [
        ("", 0, "a field, `!`, `(` or `has(` should stand here, not the end"),
        (
            "process.pid == ",
            15,
            "a number, a text in quotes, `true` or `false` should stand here, not the end",
        ),
        ("seq = 1", 4, "write `==` to compare"),
        ("seq == 1 & seq == 2", 9, "write `&&`"),
        ("seq == 1 seq == 2", 9, "`&&`, `||` or the end should stand here, not `seq`"),
        ("(seq == 1", 9, "`)` should stand here, not the end"),
        ("seq == 12x", 7, "`12x` is no number: put text in quotes"),
        ("agent == coding", 9, "text stands in quotes: write \"coding\""),
        ("agent == 'cod", 9, "this quotation mark is not closed"),
        ("agent == 'ü' ü", 13, "'ü' has no meaning here: put text in quotes"),
        ("agent ~ 12", 8, "a glob in quotes should stand here, not `12`"),
        ("has(12)", 4, "a field should stand here, not `12`"),
        ("proces.pid == 1", 0, "no event has a field `proces.pid`: did you mean `process.pid`?"),
        ("seq == 1 && ppid == 1", 12, "no event has a field `ppid`: did you mean `process.ppid`?"),
        ("has(xyzzy)", 4, "no event has a field `xyzzy`"),
        ("agent ~ 'a[b'", 10, "`[` is not closed: add `]`, or write `\\[` for the character itself"),
        (&long, 64, "this is nested over 64 levels: write it flatter"),
    ] {
        let error = Expr::parse(text).unwrap_err();
        assert_eq!((error.column, &*error.message), (column, message), "{text}");
    }
    assert!(Expr::parse("agent == '\\q'").unwrap_err().message.starts_with("there is no such escape"));
}

#[test]
fn the_caret_stands_under_what_is_wrong() {
    let error = Expr::parse("agent == 'ü' &&\tproces.pid == 1").unwrap_err();
    let shown = "no event has a field `proces.pid`: did you mean `process.pid`? at column 17\n  \
                 agent == 'ü' && proces.pid == 1\n                  ^";
    assert_eq!(error.to_string(), shown);
}

fn line(text: &str) -> Line<'_> {
    Line::parse(text.as_bytes()).unwrap()
}

#[test]
fn values_of_a_filter_are_alternatives_and_filters_add_up() {
    let text = event().to_string();
    let all = Filter {
        agents: vec!["ops".into(), "coding".into()],
        sessions: vec![SessionName::Begins("coding-7".into()), SessionName::Whole("x".into())],
        ops: vec![Op::Write, Op::Read],
        verdicts: vec![Verdict::Denied],
        kinds: vec![KindName::parse("net").unwrap(), KindName::parse("file.open").unwrap()],
        since: Some("2026-11-21T03:37:12.123456789Z".into()),
        until: Some("2026-11-21T03:37:12.123456789Z".into()),
        expr: Some(Expr::parse("seq == 7").unwrap()),
    };
    assert!(Filter::default().matches(&line(&text)));
    assert!(all.matches(&line(&text)));
    let others = [
        Filter { agents: vec!["cod".into()], ..all.clone() },
        Filter { sessions: vec![SessionName::Whole("coding-7".into())], ..all.clone() },
        Filter { ops: vec![Op::Write], ..all.clone() },
        Filter { verdicts: vec![Verdict::Killed], ..all.clone() },
        Filter { kinds: vec![KindName::Whole(Kind::FileCreate)], ..all.clone() },
        Filter { since: Some("2026-11-21T03:37:12.123456790Z".into()), ..all.clone() },
        Filter { until: Some("2026-11-21T03:37:12.123456788Z".into()), ..all.clone() },
        Filter { expr: Some(Expr::parse("seq == 8").unwrap()), ..all },
    ];
    for (number, other) in others.iter().enumerate() {
        assert!(!other.matches(&line(&text)), "filter {number}");
    }
}

#[test]
fn kinds_operations_and_verdicts_are_known_by_name() {
    assert_eq!(KindName::parse("file"), Ok(KindName::Group("file")));
    assert_eq!(KindName::parse("net.*"), Ok(KindName::Group("net")));
    assert_eq!(KindName::parse("loss"), Ok(KindName::Whole(Kind::Loss)));
    assert!(KindName::Group("file").is("file.open") && !KindName::Group("file").is("files.open"));
    assert!(KindName::parse("files").unwrap_err().contains("file.open"));
    assert_eq!((parse_op("read"), parse_verdict("would-deny")), (Ok(Op::Read), Ok(Verdict::WouldDeny)));
    assert!(parse_op("create").unwrap_err().ends_with("use `--kind file.create` for this kind of event"));
    assert!(parse_verdict("deny").unwrap_err().contains("denied"));
}

fn settle(begins: &str, sessions: &[String], later: bool) -> Result<Vec<SessionName>, SessionError> {
    let mut filter = Filter { sessions: vec![SessionName::Begins(begins.into())], ..Filter::default() };
    let mut search = SessionSearch::new(&filter).unwrap();
    for session in sessions {
        let text = json!({"time": "t", "seq": 1, "session": session}).to_string();
        search.see(&line(&text).head);
    }
    search.settle(&mut filter, later).map(|()| filter.sessions)
}

#[test]
fn a_session_is_known_by_its_beginning_where_that_is_enough() {
    let mut sessions: Vec<String> = (0..20).map(|number| format!("coding-{number:02}")).collect();
    sessions.push("ops".into());
    sessions.push("coding-".into());
    let whole = |id: &str| Ok(vec![SessionName::Whole(id.into())]);
    assert_eq!(settle("o", &sessions, false), whole("ops"));
    assert_eq!(settle("coding-", &sessions, false), whole("coding-"));
    assert_eq!(settle("x", &sessions, true), Ok(vec![SessionName::Begins("x".into())]));
    assert_eq!(settle("x", &sessions, false), Err(SessionError::None { begins: "x".into() }));
    let Err(SessionError::Several { sessions: named, more, .. }) = settle("coding-0", &sessions, true) else {
        panic!("several begin so")
    };
    assert_eq!((named.len(), more), (NAMED_SESSIONS, true));
    assert!(SessionSearch::new(&Filter::default()).is_none());
}

#[test]
fn times_are_read_as_people_write_them() {
    let now: Zoned = "2026-03-29T12:00:00+02:00[Europe/Berlin]".parse().unwrap();
    for (text, utc) in [
        ("now", "2026-03-29T10:00:00Z"),
        ("today", "2026-03-28T23:00:00Z"),
        ("yesterday", "2026-03-27T23:00:00Z"),
        ("10m", "2026-03-29T09:50:00Z"),
        ("2h 30m", "2026-03-29T07:30:00Z"),
        ("2h30m ago", "2026-03-29T07:30:00Z"),
        ("-90s", "2026-03-29T09:58:30Z"),
        ("1d", "2026-03-28T11:00:00Z"),
        ("09:30", "2026-03-29T07:30:00Z"),
        ("2026-03-01", "2026-02-28T23:00:00Z"),
        ("2026-03-01 08:15", "2026-03-01T07:15:00Z"),
        ("2026-03-01T08:15:00Z", "2026-03-01T08:15:00Z"),
        ("2026-03-01T08:15:00.5+05:30", "2026-03-01T02:45:00.5Z"),
    ] {
        let expected = crate::log::parse_time(utc).unwrap();
        assert_eq!(parse_when(text, &now), Ok(expected), "{text}");
    }
    for text in ["", "10", "soon", "25:00", "2026-02-30", "1000000000y", "1960-01-01"] {
        let error = parse_when(text, &now).unwrap_err();
        assert!(
            error.starts_with(&format!("`{text}` is no time: write RFC 3339 (`2026-03-29T10:00:00Z`)")),
            "{error}"
        );
    }
}

proptest! {
    #[test]
    fn no_text_makes_reading_an_expression_fail_badly(text in "[a-z.()!&|=<>~\"'\\\\ 0-9ü-]{0,40}") {
        match Expr::parse(&text) {
            Ok(expr) => prop_assert_eq!(expr.holds(&event()), expr.holds(&event())),
            Err(error) => prop_assert!(error.column <= text.chars().count(), "{error}"),
        }
    }

    #[test]
    fn what_the_compact_form_escapes_can_be_pasted(text in any::<String>()) {
        let escaped = crate::output::escape::escape(&text).replace('"', "\\\"");
        let expr = Expr::parse(&format!("file.path == \"{escaped}\"")).unwrap();
        let event = json!({"file": {"path": text}});
        prop_assert!(expr.holds(&event));
    }
}
