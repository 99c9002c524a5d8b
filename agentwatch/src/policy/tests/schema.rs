//! The schema takes what the reader takes, and knows the same keys.

use std::collections::BTreeSet;

use regex_automata::Input;
use regex_automata::dfa::{Automaton as _, dense};
use serde_json::{Map, Value as Json};

use super::*;

/// What is wrong by the schema, as `path: keyword`. Keywords that this does not know are a mistake in the
/// schema or here.
fn check(root: &Json, schema: &Json, value: &Json, path: &str, found: &mut Vec<String>) {
    let Json::Object(keywords) = schema else { panic!("{path}: a schema is an object: {schema}") };
    for (keyword, argument) in keywords {
        if !holds(root, keywords, (keyword, argument), value, path, found) {
            found.push(format!("{path}: {keyword}"));
        }
    }
}

fn fits(root: &Json, schema: &Json, value: &Json) -> bool {
    let mut found = Vec::new();
    check(root, schema, value, "", &mut found);
    found.is_empty()
}

fn holds(
    root: &Json,
    keywords: &Map<String, Json>,
    (keyword, argument): (&str, &Json),
    value: &Json,
    path: &str,
    found: &mut Vec<String>,
) -> bool {
    let number = || usize::try_from(argument.as_u64().unwrap()).unwrap();
    let any =
        |schemas: &Json| schemas.as_array().unwrap().iter().filter(|one| fits(root, one, value)).count();
    match (keyword, value) {
        ("$schema" | "$id" | "$defs" | "title" | "description" | "format", _) => true,
        ("$ref", _) => {
            let pointer = argument.as_str().unwrap().strip_prefix('#').unwrap();
            check(root, root.pointer(pointer).unwrap(), value, path, found);
            true
        }
        ("type", _) => has_type(argument, value),
        ("enum", _) => argument.as_array().unwrap().contains(value),
        ("const", _) => argument == value,
        ("oneOf", _) => any(argument) == 1,
        ("anyOf", _) => any(argument) > 0,
        ("required", Json::Object(map)) => {
            argument.as_array().unwrap().iter().all(|key| map.contains_key(key.as_str().unwrap()))
        }
        ("properties", Json::Object(map)) => {
            for (key, schema) in argument.as_object().unwrap() {
                if let Some(value) = map.get(key) {
                    check(root, schema, value, &format!("{path}/{key}"), found);
                }
            }
            true
        }
        ("additionalProperties", Json::Object(map)) => {
            let known = keywords.get("properties").and_then(Json::as_object);
            let others = map.iter().filter(|(key, _)| known.is_none_or(|known| !known.contains_key(*key)));
            for (key, value) in others {
                if argument == &Json::Bool(false) {
                    found.push(format!("{path}/{key}: unknown"));
                } else {
                    check(root, argument, value, &format!("{path}/{key}"), found);
                }
            }
            true
        }
        ("propertyNames", Json::Object(map)) => {
            map.keys().all(|key| fits(root, argument, &Json::String(key.clone())))
        }
        ("items", Json::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                check(root, argument, item, &format!("{path}/{index}"), found);
            }
            true
        }
        ("minItems", Json::Array(items)) => items.len() >= number(),
        ("maxItems", Json::Array(items)) => items.len() <= number(),
        ("minProperties", Json::Object(map)) => map.len() >= number(),
        ("maxProperties", Json::Object(map)) => map.len() <= number(),
        ("minLength", Json::String(text)) => text.chars().count() >= number(),
        ("maxLength", Json::String(text)) => text.chars().count() <= number(),
        ("minimum", Json::Number(n)) => n.as_f64().unwrap() >= argument.as_f64().unwrap(),
        ("pattern", Json::String(text)) => {
            let dfa = dense::DFA::new(argument.as_str().unwrap()).unwrap();
            dfa.try_search_fwd(&Input::new(text)).unwrap().is_some()
        }
        (
            "required"
            | "properties"
            | "additionalProperties"
            | "propertyNames"
            | "items"
            | "minItems"
            | "maxItems"
            | "minProperties"
            | "maxProperties"
            | "minLength"
            | "maxLength"
            | "minimum"
            | "pattern",
            _,
        ) => true,
        _ => panic!("{path}: this test does not know the keyword {keyword}"),
    }
}

fn has_type(wanted: &Json, value: &Json) -> bool {
    let is = |name: &Json| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    };
    wanted.as_array().map_or_else(|| is(wanted), |names| names.iter().any(is))
}

/// The tree as an editor sees it.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Text(text) => match text.as_str() {
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            text => text.parse::<i64>().map_or_else(|_| Json::String(text.to_owned()), Json::from),
        },
        Value::List(items) => items.iter().map(|item| json(item)).collect(),
        Value::Map(entries) => {
            entries.iter().map(|(key, value)| (key.text().unwrap().to_owned(), json(value))).collect()
        }
    }
}

fn schema() -> Json {
    serde_json::from_str(SCHEMA).unwrap()
}

/// What is wrong with a policy by the schema.
fn wrong(text: &str) -> Vec<String> {
    let tree = parse(&source(text)).unwrap();
    let schema = schema();
    let mut found = Vec::new();
    check(&schema, &schema, &json(&tree), "", &mut found);
    found.sort();
    found
}

#[test]
fn the_contracts_policy_fits() {
    let contract = include_str!("../../../tests/golden/policy/contract.yaml");
    assert_eq!(wrong(contract), Vec::<String>::new());
    assert_eq!(wrong(include_str!("../../../tests/golden/policy/cases/contract.yaml")), Vec::<String>::new());
    assert_eq!(wrong(include_str!("../../../tests/golden/policy/advice.yaml")), Vec::<String>::new());
    assert_eq!(wrong("version: 1\nagents:\n  a:\nrules:\n"), Vec::<String>::new());
}

#[test]
fn what_the_reader_refuses_for_its_form_does_not_fit() {
    for text in [
        "{}",
        "version: 2",
        "version: 1\nruels: []",
        "version: 1\nagents: {bad name: {}}",
        "version: 1\nagents: {a: {mode: enfroce}}",
        "version: 1\nagents: {a: {match: [{exec: [x], run: [y]}]}}",
        "version: 1\nagents: {a: {default: {conect: deny}}}",
        "version: 1\nagents: {a: {guards: {ptrace: maybe}}}",
        "version: 1\nagents: {a: {breakers: [{when: {denied: 0, within: 60s}, then: kill}]}}",
        "version: 1\nresources: {a: {why: w}}",
        "version: 1\nwindows: {a: {from: 2026-12-20T00:00:00Z}}",
        "version: 1\nrules: [{name: r}]",
        "version: 1\nrules: [{deny: {exec: [/x]}}]",
        "version: 1\nrules: [{name: r, deny: {exec: [/x]}, allow: {exec: [/y]}}]",
        "version: 1\nrules: [{name: r, deny: {exec: []}}]",
        "version: 1\nrules: [{name: r, deny: {exec: /x}}]",
        "version: 1\nrules: [{name: r, deny: {exec: [/x]}, timeout: soon}]",
        "version: 1\ntests: [{agent: a, expect: deny}]",
        "version: 1\ntests: [{agent: a, connect: \"x:1\", expect: maybe}]",
    ] {
        assert!(!wrong(text).is_empty(), "{text}");
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn the_schema_knows_the_readers_keys() {
    let schema = schema();
    let of = |pointer: &str| -> BTreeSet<String> {
        schema.pointer(pointer).unwrap().as_object().unwrap().keys().cloned().collect()
    };
    let set = |lists: &[&[&str]]| -> BTreeSet<String> {
        lists.iter().flat_map(|list| list.iter()).map(|key| (*key).to_owned()).collect()
    };
    let guards = Guard::ALL.map(Guard::as_str);
    let operations: Vec<&str> = crate::event::Op::ALL.iter().map(|op| op.name()).collect();
    assert_eq!(keys::OPERATION.as_slice(), operations);
    assert_eq!(keys::ACTION, Action::ALL.map(Action::as_str));
    for (pointer, expected) in [
        ("/properties", set(&[&keys::TOP])),
        ("/$defs/resource/properties", set(&[&keys::RESOURCE])),
        ("/$defs/agent/properties", set(&[&keys::AGENT])),
        ("/$defs/agent/properties/default/properties", set(&[&keys::OPERATION])),
        ("/$defs/agent/properties/guards/properties", set(&[&guards])),
        ("/$defs/match/properties", set(&[&keys::MATCH])),
        ("/$defs/scope/properties", set(&[&keys::OPERATION])),
        ("/$defs/breaker/properties", set(&[&keys::BREAKER])),
        ("/$defs/when/properties", set(&[&keys::WHEN, &keys::OPERATION])),
        ("/$defs/window/properties", set(&[&keys::WINDOW])),
        ("/$defs/rule/properties", set(&[&keys::RULE, &keys::ACTION])),
        ("/$defs/case/properties", set(&[&keys::CASE, &keys::OPERATION])),
    ] {
        assert_eq!(of(pointer), expected, "{pointer}");
    }
    let words = |pointer: &str| -> Vec<Json> { schema.pointer(pointer).unwrap().as_array().unwrap().clone() };
    let expect: Vec<Json> = Expect::WORDS.iter().map(|(word, _)| Json::from(*word)).collect();
    assert_eq!(words("/$defs/case/properties/expect/enum"), expect);
    assert_eq!(words("/$defs/agent/properties/mode/enum"), Mode::ALL.map(|mode| Json::from(mode.as_str())));
    assert_eq!(words("/$defs/action/enum"), Action::ALL.map(|one| Json::from(one.as_str())));
    assert_eq!(words("/$defs/containment/enum"), Containment::ALL.map(|one| Json::from(one.as_str())));
}
