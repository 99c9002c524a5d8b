//! The tables decide as the reference evaluator does.

use std::net::IpAddr;
use std::time::Instant;

use agentwatch_common::{answer::name_number, rules::RULE_DEFAULT};
use proptest::prelude::*;

use super::*;
use crate::policy::compile::{Views, verdict_of};
use crate::policy::{Address, By, Context, Operation, Policy, Source, Target, Users, policy_of};

const DAY: u64 = 86_400 * 1_000_000_000;
/// 2026-12-01.
const BEGIN: u64 = 1_796_083_200_000_000_000;

fn read(text: String) -> Policy {
    let source = Source { name: "policy.yaml".into(), text };
    let context = Context { users: &Users::default(), now_ns: 0 };
    policy_of(vec![source], context).unwrap_or_else(|problems| panic!("{problems}")).0
}

fn tables(policy: &Policy, names: &KnownNames) -> (Views, NetTables) {
    let views = Views::new(policy).unwrap();
    let tables = compile(policy, &views, names).unwrap();
    (views, tables)
}

/// The tables as they are kept while what is known of names changes.
fn followed(policy: &Policy, views: &Views, steps: &[&KnownNames]) -> NetTables {
    let mut rules = NetRules::new(policy, views).unwrap();
    let mut tables = rules.tables().clone();
    for known in steps {
        let changes = rules.update(known);
        assert_eq!((changes.undecided, changes.dropped), (0, 0));
        assert_eq!((changes.ranges_from, changes.rows_from), (tables.ranges.len(), tables.rows.len()));
        tables.ranges.extend_from_slice(&rules.tables().ranges[changes.ranges_from..]);
        tables.rows.extend_from_slice(&rules.tables().rows[changes.rows_from..]);
        tables.lists.clone_from(&rules.tables().lists);
        let gone = changes.gone.iter().map(|address| (*address, rules.own_set(*address)));
        let put = changes.put.iter().map(|(address, set)| (*address, Some(*set)));
        for (address, set) in gone.chain(put) {
            tables.v4.retain(|one| one.bits < 32 || IpAddr::from(one.address) != address);
            tables.v6.retain(|one| one.bits < 128 || IpAddr::from(one.address) != address);
            match (address, set) {
                (IpAddr::V4(v4), Some(set)) => {
                    tables.v4.push(Prefix4 { bits: 32, address: v4.octets(), set });
                }
                (IpAddr::V6(v6), Some(set)) => {
                    tables.v6.push(Prefix6 { bits: 128, address: v6.octets(), set });
                }
                (_, None) => {}
            }
        }
    }
    assert_eq!(rules.update(steps.last().unwrap()).put, [], "nothing has changed");
    tables
}

/// The number of the rule that the evaluator finds, as the tables number it, and the verdict's.
fn reference(policy: &Policy, names: &KnownNames, agent: &str, attempt: Attempt) -> (u16, u8) {
    // Names stand for the host that is really meant.
    let host = canonical(attempt.op, attempt.ip);
    let known = names.iter().filter(|(_, addresses)| addresses.contains(&host));
    let address = Address::Ip {
        transport: attempt.transport,
        ip: Some(attempt.ip),
        port: attempt.port,
        names: known.map(|(name, _)| name.clone()).collect(),
    };
    let operation = Operation { op: attempt.op, target: Target::Address(address) };
    let decision = policy.decide(agent, &operation, attempt.when_ns);
    let rule = match decision.by {
        By::Rule { index, .. } => u16::try_from(index + 1).unwrap(),
        By::Default | By::Plan => RULE_DEFAULT,
        By::Protection(protection) => panic!("{protection:?} is about no such address"),
        By::Nothing | By::Open => RULE_NONE,
    };
    (rule, verdict_of(decision.action).raw())
}

const AGENTS: &str = "agents:
  a: {owner: o, mode: enforce}
  b: {owner: o, mode: enforce, default: {connect: deny, listen: log}}
  c: {owner: o, mode: enforce}
  p: {owner: o, mode: plan, default: {connect: kill}}
  q: {owner: o, mode: plan}
windows:
  v: {from: 2026-12-02T00:00:00Z, to: 2026-12-05T00:00:00Z}
  w: {from: 2026-12-04T00:00:00Z, to: 2026-12-07T00:00:00Z}
resources:
  r: {connect: [\"10.1.0.0/16:1-4\", \"[fd00::]/8:*\", /run/x]}
";

fn pattern() -> impl Strategy<Value = String> {
    let host = prop::sample::select(vec![
        "*",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.3",
        "0.0.0.0/0",
        "127.0.0.0/8",
        "[::]/0",
        "[fd00::]/8",
        "[fd00:1::]/32",
        "[fd00:1::1]",
        "[::1]",
        "[::ffff:10.1.0.0]/112",
        "a.test",
        "*.test",
        "b.a.test",
        "none.test",
    ]);
    let ports = prop::sample::select(vec!["*", "1", "1-5", "3-9", "2,4,8-10", "65535", "0-3"]);
    let transport = prop::sample::select(vec!["", "", "tcp:", "udp:"]);
    let plain =
        (transport, host, ports).prop_map(|(transport, host, ports)| format!("{transport}{host}:{ports}"));
    prop_oneof![12 => plain, 1 => Just("resource:r".to_owned()), 1 => Just("/run/y".to_owned())]
}

fn list() -> impl Strategy<Value = String> {
    let quoted = |patterns: Vec<String>| patterns.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>();
    prop::collection::vec(pattern(), 1..4)
        .prop_map(move |patterns| format!("[{}]", quoted(patterns).join(", ")))
}

fn scope() -> impl Strategy<Value = String> {
    (prop::option::weighted(0.8, list()), list(), any::<bool>()).prop_map(|(connect, listen, both)| {
        match connect {
            Some(connect) if both => format!("{{connect: {connect}, listen: {listen}}}"),
            Some(connect) => format!("{{connect: {connect}}}"),
            None => format!("{{listen: {listen}}}"),
        }
    })
}

fn rule() -> impl Strategy<Value = String> {
    (
        prop::sample::select(vec!["allow", "log", "ask", "deny", "kill"]),
        scope(),
        prop::option::weighted(0.3, scope()),
        prop::option::weighted(0.4, prop::sample::select(vec!["[a]", "[b, p]", "[a, b]", "[q]"])),
        prop::option::weighted(0.4, prop::sample::select(vec!["v", "w"])),
    )
        .prop_map(|(action, scope, unless, agents, during)| {
            let unless = unless.map(|unless| format!(", unless: {unless}")).unwrap_or_default();
            let agents = agents.map(|agents| format!(", agents: {agents}")).unwrap_or_default();
            let during = during.map(|during| format!(", during: {during}")).unwrap_or_default();
            format!("{action}: {scope}{unless}{agents}{during}")
        })
}

fn policy_text() -> impl Strategy<Value = String> {
    prop::collection::vec(rule(), 0..10).prop_map(|rules| {
        let rules: String =
            rules.iter().enumerate().map(|(n, rule)| format!("  - {{name: r{n}, {rule}}}\n")).collect();
        format!("version: 1\n{AGENTS}rules:\n{rules}")
    })
}

const ADDRESSES: [&str; 16] = [
    "10.1.2.3",
    "10.1.2.4",
    "10.1.9.9",
    "10.9.9.9",
    "11.0.0.1",
    "127.0.0.1",
    "0.0.0.0",
    "::",
    "::1",
    "::ffff:10.1.2.3",
    "::ffff:0.0.0.0",
    "fd00::1",
    "fd00:1::1",
    "fd00:1::2",
    "2001:db8::1",
    "255.255.255.255",
];

fn known_names() -> impl Strategy<Value = KnownNames> {
    // What no host has is nobody's name.
    let addresses: Vec<IpAddr> = ADDRESSES.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect();
    let usable: Vec<IpAddr> = addresses
        .into_iter()
        .filter(|ip| !ip.to_canonical().is_unspecified() && *ip == ip.to_canonical())
        .collect();
    let name =
        prop::sample::select(vec!["a.test", "b.a.test", "c.test", "other.example"]).prop_map(str::to_owned);
    prop::collection::btree_map(name, prop::collection::vec(prop::sample::select(usable), 0..3), 0..4)
}

fn attempt() -> impl Strategy<Value = (&'static str, Attempt)> {
    (
        prop::sample::select(vec!["a", "b", "c", "p", "q", "stranger"]),
        prop::sample::select(vec![Op::Connect, Op::Listen]),
        prop::sample::select(Transport::ALL.to_vec()),
        prop::sample::select(ADDRESSES.to_vec()),
        prop_oneof![0_u16..12, Just(65_535), Just(65_534)],
        0_u64..8,
    )
        .prop_map(|(agent, op, transport, ip, port, day)| {
            let when_ns = BEGIN + day * DAY;
            (agent, Attempt { view: 0, op, transport, ip: ip.parse().unwrap(), port, when_ns })
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn the_tables_decide_as_the_evaluator_does(
        text in policy_text(), before in known_names(), names in known_names(), attempts in prop::collection::vec(attempt(), 1..60),
    ) {
        let policy = read(text.clone());
        let views = Views::new(&policy).unwrap();
        let tables = followed(&policy, &views, &[&before, &names]);
        for (agent, mut attempt) in attempts {
            let index = policy.agents.iter().position(|one| one.spec.name == agent);
            attempt.view = views.of_agent(index);
            let found = tables.decide(attempt);
            prop_assert_eq!((found.rule, found.verdict), reference(&policy, &names, agent, attempt), "{} {:?} {}", agent, attempt, text);
        }
    }
}

/// What is decided about an address by a name that a session was told it has, as the kernel does it.
fn by_name(rules: &NetRules, name: &str, attempt: Attempt) -> Option<Choice> {
    let of = |name: &str| {
        let number = name_number(name);
        rules.learned().iter().find(|(known, _)| *known == number).map(|(_, set)| *set)
    };
    let above = std::iter::successors(name.split_once('.'), |(_, rest)| rest.split_once('.'));
    let set = of(name).or_else(|| above.into_iter().find_map(|(_, rest)| of(&format!("*.{rest}"))))?;
    rules.tables().look(set, attempt)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    /// Of one name and host that nothing else is known of.
    #[test]
    fn what_is_learned_refuses_what_the_evaluator_does_and_no_more(
        text in policy_text(),
        name in prop::sample::select(vec!["a.test", "b.a.test", "c.b.a.test", "c.test", "other.example"]),
        attempts in prop::collection::vec(attempt(), 1..60),
    ) {
        let policy = read(text.clone());
        let views = Views::new(&policy).unwrap();
        let rules = NetRules::new(&policy, &views).unwrap();
        for (agent, mut attempt) in attempts {
            attempt.view = views.of_agent(policy.agents.iter().position(|one| one.spec.name == agent));
            attempt.op = Op::Connect;
            let names = KnownNames::from([(name.to_owned(), vec![canonical(attempt.op, attempt.ip)])]);
            let (rule, verdict) = reference(&policy, &names, agent, attempt);
            let learned = by_name(&rules, name, attempt).filter(|choice| choice.verdict != 0);
            let found = learned.map_or(0, |choice| choice.verdict).max(rules.tables().decide(attempt).verdict);
            let counts = policy.rules.get(usize::from(rule).wrapping_sub(1)).is_none_or(|rule| is_learned(&policy, rule));
            if verdict >= Verdict::Held.raw() && counts && rule != RULE_DEFAULT {
                prop_assert!(found >= verdict, "{} {} {:?} {:?} {}", agent, name, attempt, learned, text);
            }
            if let Some(choice) = learned {
                prop_assert!(choice.verdict >= Verdict::Held.raw() && verdict >= choice.verdict, "{} {} {:?} {:?} {}", agent, name, attempt, learned, text);
            }
        }
    }
}

#[test]
fn agents_alike_share_a_view() {
    let policy = read(format!("version: 1\n{AGENTS}rules:\n  - {{name: r, deny: {{connect: [\"*:1\"]}}}}\n"));
    let views = Views::new(&policy).unwrap();
    let of: Vec<u16> = (0..5).map(|agent| views.of_agent(Some(agent))).collect();
    assert_eq!((of.as_slice(), views.of_agent(None), views.len()), (&[1, 2, 1, 3, 4][..], 0, 5));
    let policy = read(format!(
        "version: 1\n{AGENTS}rules:\n  - {{name: r, agents: [c], deny: {{connect: [\"*:1\"]}}}}\n"
    ));
    let views = Views::new(&policy).unwrap();
    assert_ne!(views.of_agent(Some(0)), views.of_agent(Some(2)));
}

#[test]
fn networks_of_one_rule_share_a_set_and_a_list() {
    let networks: Vec<String> =
        (0..10_000_u32).map(|n| format!("\"10.{}.{}.0/24:1-9\"", n / 256, n % 256)).collect();
    let policy =
        read(format!("version: 1\nrules:\n  - {{name: r, deny: {{connect: [{}]}}}}\n", networks.join(", ")));
    let (_, tables) = tables(&policy, &KnownNames::new());
    assert_eq!((tables.v4.len(), tables.v6.len()), (10_000, 0));
    assert!(tables.v4.iter().all(|prefix| prefix.set == 1));
    assert_eq!((tables.lists.len(), tables.ranges.len()), (2, 3));
}

#[test]
fn ten_thousand_networks_in_as_many_rules_beside_a_thousand_ports() {
    let networks: String = (0..8_900_u32)
        .map(|n| {
            format!("  - {{name: n{n}, deny: {{connect: [\"10.{}.{}.0/24:{n}\"]}}}}\n", n / 256, n % 256)
        })
        .collect();
    let ports: String = (0..1_000_u32)
        .map(|n| format!("  - {{name: p{n}, log: {{connect: [\"*:{}\"]}}}}\n", n * 2))
        .collect();
    let policy = read(format!("version: 1\n{AGENTS}rules:\n{networks}{ports}"));
    let began = Instant::now();
    let (_, tables) = tables(&policy, &KnownNames::new());
    // Some ten times what it takes where nothing else runs, with debug assertions.
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    let bytes = tables.v4.len() * size_of::<Prefix4>()
        + tables.rows.len() * 4
        + tables.lists.len() * size_of::<PortList>()
        + tables.ranges.len() * size_of::<PortRange>();
    assert!(bytes < 4 << 20, "{bytes} bytes");
    let attempt = Attempt {
        view: 0,
        op: Op::Connect,
        transport: Transport::Tcp,
        ip: "10.0.9.1".parse().unwrap(),
        port: 9,
        when_ns: 0,
    };
    assert_eq!(tables.decide(attempt).rule, 10);
    assert_eq!(tables.decide(Attempt { port: 10, ..attempt }).rule, 8_906);
}

#[test]
fn what_does_not_fit_is_refused_with_a_sentence() {
    let of = |text: String| {
        let policy = read(text);
        let views = Views::new(&policy);
        views
            .map_err(NetError::from)
            .and_then(|views| compile(&policy, &views, &KnownNames::new()))
            .unwrap_err()
    };
    let windows: String = (0..5)
        .map(|n| format!("  w{n}: {{from: 2026-12-0{}T00:00:00Z, to: 2026-12-09T00:00:00Z}}\n", n + 1))
        .collect();
    let rules: String =
        (0..5).map(|n| format!("  - {{name: r{n}, during: w{n}, deny: {{connect: [\"*:1\"]}}}}\n")).collect();
    assert_eq!(
        of(format!("version: 1\nwindows:\n{windows}rules:\n{rules}")),
        NetError::Choices(TooManyChoices { rule: "r4".into() })
    );

    let agents: String =
        (0..super::super::views::VIEWS_MAX).map(|n| format!("  a{n}: {{owner: o}}\n")).collect();
    let rules: String = (0..super::super::views::VIEWS_MAX)
        .map(|n| format!("  - {{name: r{n}, agents: [a{n}], deny: {{connect: [\"*:1\"]}}}}\n"))
        .collect();
    assert_eq!(
        of(format!("version: 1\nagents:\n{agents}rules:\n{rules}")),
        NetError::Views(ViewsError::TooMany)
    );
}
