//! Advice about policies that can be used.

use super::*;

fn rules(rules: &str) -> Vec<(Code, usize, usize)> {
    warnings(&format!(
        "version: 1\nagents: {{a: {{owner: o}}, b: {{owner: o}}}}\nresources: {{db: {{connect: [\"10.0.0.0/8:5432\"]}}}}\nwindows: {{w: {{from: 2026-12-01T00:00:00Z, to: 2026-12-05T00:00:00Z}}, v: {{from: 2026-12-02T00:00:00Z, to: 2026-12-03T00:00:00Z}}}}\nrules:\n{rules}"
    ))
}

#[test]
fn a_rule_that_a_stricter_one_covers_is_told() {
    let shadowed = vec![(Code::Shadowed, 7, 10)];
    for (one, two, found) in [
        ("deny: {connect: [\"*:22\"]}", "allow: {connect: [\"10.0.0.1:22\"]}", &shadowed),
        ("deny: {connect: [\"*:22\"]}", "deny: {connect: [\"10.0.0.1:22\"]}", &shadowed),
        ("deny: {connect: [\"10.0.0.0/8:*\"]}", "log: {connect: [\"resource:db\"]}", &shadowed),
        ("deny: {read: [/srv]}", "ask: {read: [\"/srv/*/x\"]}", &shadowed),
        ("deny: {read: [/srv]}", "allow: {write: [\"/srv/x\"]}", &Vec::new()),
        ("log: {connect: [\"*:22\"]}", "deny: {connect: [\"10.0.0.1:22\"]}", &Vec::new()),
        ("agents: [a], deny: {connect: [\"*:22\"]}", "allow: {connect: [\"1.1.1.1:22\"]}", &Vec::new()),
        ("deny: {connect: [\"*:22\"]}", "agents: [a], allow: {connect: [\"1.1.1.1:22\"]}", &shadowed),
        ("during: w, deny: {connect: [\"*:22\"]}", "allow: {connect: [\"1.1.1.1:22\"]}", &Vec::new()),
        (
            "during: w, deny: {connect: [\"*:22\"]}",
            "during: v, allow: {connect: [\"1.1.1.1:22\"]}",
            &shadowed,
        ),
        (
            "during: v, deny: {connect: [\"*:22\"]}",
            "during: w, allow: {connect: [\"1.1.1.1:22\"]}",
            &Vec::new(),
        ),
        (
            "deny: {connect: [\"*:22\"]}, unless: {connect: [\"1.1.1.1:22\"]}",
            "allow: {connect: [\"1.1.1.1:22\"]}",
            &Vec::new(),
        ),
    ] {
        let text = format!("- {{name: one, {one}}}\n- {{name: two, {two}}}\n");
        let warned: Vec<_> =
            rules(&text).into_iter().filter(|(code, ..)| *code != Code::NotEnforcedYet).collect();
        assert_eq!(&warned, found, "{text}");
    }
}

#[test]
fn a_pattern_that_a_stricter_rule_covers_is_told_by_itself() {
    let text = "- {name: one, deny: {connect: [\"*:22\"]}}\n- {name: two, allow: {connect: [\"1.1.1.1:22\", \"1.1.1.1:23\"]}}\n";
    assert_eq!(rules(text), [(Code::Shadowed, 7, 33)]);
    // Two rules together can cover what neither does.
    let text = "- {name: one, deny: {connect: [\"*:22\"]}}\n- {name: two, kill: {read: [/x]}}\n- {name: three, allow: {connect: [\"1.1.1.1:22\"], read: [/x/y]}}\n";
    assert_eq!(rules(text), [(Code::Shadowed, 8, 10)]);
}

#[test]
fn a_rule_that_can_never_match_is_told() {
    assert_eq!(
        rules("- {name: one, deny: {connect: [\"1.1.1.1:22\"]}, unless: {connect: [\"1.1.1.0/24:*\"]}}\n"),
        [(Code::NeverMatches, 6, 10)]
    );
    assert_eq!(rules("- {name: one, deny: {read: [\"resource:db\"]}}\n"), [(Code::NeverMatches, 6, 29)]);
    assert_eq!(rules("- {name: one, deny: {connect: [\"0.0.0.0:22\"]}}\n"), [(Code::NeverMatches, 6, 32)]);
    assert_eq!(
        rules("- {name: one, deny: {connect: [\"*:22\"]}, unless: {read: [/x]}}\n"),
        [(Code::NoEffect, 6, 51)]
    );
}

#[test]
fn a_window_that_has_ended_is_told_with_its_rules() {
    let text = "version: 1\nwindows:\n  w: {from: 2025-12-01T00:00:00Z, to: 2025-12-05T00:00:00Z}\nrules:\n- {name: one, during: w, deny: {connect: [\"*:22\"]}}\n";
    assert_eq!(warnings(text), [(Code::WindowEnded, 3, 3), (Code::NeverMatches, 5, 10)]);
}

#[test]
fn a_block_written_by_an_address_in_it_is_told() {
    let of = |address: &str| rules(&format!("- {{name: one, deny: {{connect: [\"{address}\"]}}}}\n"));
    for address in ["10.20.3.4/16:1", "[2001:db8::1]/32:1", "tcp:10.20.3.4/16:1", "[::ffff:10.0.0.1]/104:1"] {
        assert_eq!(of(address), [(Code::HostBits, 6, 32)], "{address}");
    }
    for address in
        ["10.20.0.0/16:1", "[2001:db8::]/32:1", "10.0.0.1/32:1", "[::ffff:10.0.0.0]/104:1", "10.0.0.1:1"]
    {
        assert_eq!(of(address), [], "{address}");
    }
}

#[test]
fn a_denied_program_without_a_denied_effect_is_told() {
    let exec = "- {name: one, deny: {exec: [/usr/bin/dropdb]}}\n";
    assert_eq!(rules(exec), [(Code::ExecOnly, 6, 10)]);
    assert_eq!(
        rules(&format!("{exec}- {{name: two, agents: [a], deny: {{delete: [/srv]}}}}\n")),
        [(Code::ExecOnly, 6, 10)]
    );
    assert_eq!(rules(&format!("{exec}- {{name: two, deny: {{delete: [/srv]}}}}\n")), []);
    let by_default = "version: 1\nagents: {a: {owner: o, default: {connect: deny}}}\nrules:\n";
    assert_eq!(warnings(&format!("{by_default}{exec}")), []);
    assert_eq!(warnings(&format!("version: 1\nrules:\n{exec}")), [(Code::ExecOnly, 3, 10)]);
}
