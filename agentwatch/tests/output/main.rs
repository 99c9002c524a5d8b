//! The forms of events: golden files, renewed with `AGENTWATCH_BLESS=1`, and hostile texts.
#![expect(clippy::unwrap_used, reason = "a test that finds nothing must fail")]

mod samples;

use std::collections::BTreeSet;
use std::path::Path;

use agentwatch::event::bytes::encode;
use agentwatch::event::{Encoding, Event, File, Kind, Network, ObservedText, Op};
use agentwatch::log::Line;
use agentwatch::output::{Form, Style};
use agentwatch::query::FIELDS;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use samples::{at, of_session, samples};

fn style(form: Form, terminal: bool, colour: bool) -> Style {
    Style { form, terminal, colour, zone: TimeZone::UTC }
}

fn show(event: &Event, style: &Style) -> String {
    let stored = serde_json::to_string(event).unwrap();
    let mut shown = String::new();
    style.show(&Line::parse(stored.as_bytes()).unwrap(), &mut shown).unwrap();
    shown
}

fn check_golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("AGENTWATCH_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == golden,
        "this differs from {}; where it is meant to, renew it with AGENTWATCH_BLESS=1:\n{found}",
        path.display()
    );
}

fn all(style: &Style) -> String {
    samples().iter().map(|event| show(event, style)).collect()
}

#[test]
fn the_compact_form_is_as_agreed() {
    check_golden("events-compact.txt", &all(&style(Form::Compact, false, false)));
    check_golden("events-colour.txt", &all(&style(Form::Compact, true, true)));
}

#[test]
fn json_is_as_agreed_and_comes_back_as_the_same_event() {
    let stored = all(&style(Form::Json, false, false));
    check_golden("events.jsonl", &stored);
    check_golden("events-terminal.jsonl", &all(&style(Form::Json, true, false)));
    for shown in [stored, all(&style(Form::Json, true, false))] {
        let read: Vec<Event> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, samples());
    }
}

/// Names of all values below `value`, with dots between the levels.
fn names(value: &serde_json::Value, prefix: &str, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                let dot = if prefix.is_empty() { "" } else { "." };
                names(field, &format!("{prefix}{dot}{name}"), found);
            }
        }
        _ => {
            found.insert(prefix.to_owned());
        }
    }
}

#[test]
fn expressions_know_the_fields_of_events_and_no_others() {
    let mut found = BTreeSet::new();
    for event in samples() {
        names(&serde_json::to_value(event).unwrap(), "", &mut found);
    }
    assert_eq!(found, FIELDS.iter().map(|&field| field.to_owned()).collect());
}

/// Whether a character may reach a terminal inside a line.
fn is_harmless(character: char) -> bool {
    let directed = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}');
    let shapeless = matches!(character, '\u{200b}'..='\u{200d}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    !(character.is_control() || directed || shapeless)
}

fn hostile() -> impl Strategy<Value = (ObservedText, Option<Encoding>)> {
    let part = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        any::<char>().prop_map(|character| character.to_string().into_bytes()),
        proptest::sample::select(vec![
            "\n",
            "\r",
            "\x1b[2J",
            "\x7f",
            "\u{9b}2J",
            "\u{202e}",
            "\u{200b}",
            "\u{2028}",
            "\\",
            "\"",
            "  ",
            " ",
            "denied",
            "→",
            " ×7",
            "(deleted)",
            "-",
            "%41",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    proptest::collection::vec(part, 0..12).prop_map(|parts| {
        let (text, encoded) = encode(&parts.concat());
        (text, encoded.then_some(Encoding::Percent))
    })
}

/// The fields of a compact line: two or more spaces stand between them, quoted ones hold any.
fn split(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let (mut quoted, mut escaped, mut spaces) = (false, false, 0);
    for character in line.chars() {
        if spaces >= 2 && character != ' ' {
            fields.push(String::new());
        }
        spaces = if character == ' ' && !quoted { spaces + 1 } else { 0 };
        if character == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = character == '\\' && !escaped;
        fields.last_mut().unwrap().push(character);
    }
    fields.iter().map(|field| field.trim_end_matches(' ').to_owned()).collect()
}

proptest! {
    #[test]
    fn no_text_of_a_process_forges_a_line_a_field_or_a_terminal_sequence(
        (program, program_encoding) in hostile(),
        (path, path_encoding) in hostile(),
        (to, path_to_encoding) in hostile(),
        (command, _) in hostile(),
        (address, peer_address_encoding) in hostile(),
        which in 0..4_u8,
    ) {
        let mut event = of_session(1, Kind::FileRename, Some(Op::Delete));
        event.rule = Some("a rule".into());
        if let Some(process) = &mut event.process {
            process.executable_path = program;
            process.executable_path_encoding = program_encoding;
        }
        match which {
            0 => event.command = Some(command),
            1 => event.file = Some(File { argument: Some(command), deleted: true, ..at("/a") }),
            2 => event.network = Some(Network {
                transport: "unix".into(),
                peer_address: Some(address),
                peer_address_encoding,
                ..Network::default()
            }),
            _ => event.file = Some(File {
                path, path_encoding, path_to: Some(to), path_to_encoding, ..File::default()
            }),
        }
        let compact = show(&event, &style(Form::Compact, true, false));
        let json = show(&event, &style(Form::Json, true, false));
        for shown in [&compact, &json] {
            let line = shown.strip_suffix('\n').unwrap();
            prop_assert!(line.chars().all(is_harmless), "{line:?}");
        }
        prop_assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
        let fields = split(compact.trim_end());
        prop_assert_eq!(fields.len(), 7, "{:?}", compact);
        prop_assert_eq!(&fields[1], "coding-7f3k2q");
        prop_assert!(fields[2].ends_with("[4242]"), "{:?}", compact);
        prop_assert_eq!(&fields[3], "rename");
        prop_assert_eq!((&*fields[5], &*fields[6]), ("allowed", "a rule"));
    }
}
