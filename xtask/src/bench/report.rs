//! The tables: figures, targets, and whether each is reached.

use super::Found;
use super::binding::Binding;
use super::cost::{Cost, OPERATIONS, Setting};
use super::large::{Large, NUMBERS as PATTERNS, PLACES};
use super::load::Load;
use super::memory::Memory;
use super::rules::{BUILD, NUMBERS, OPEN, OPEN_MOUNTED, USUAL};

/// What a process outside any session may pay, in percent of the bare operation.
const OUTSIDE_TARGETS: [(&str, f64); 2] = [("open + close", 8.0), ("fork + exec + wait", 1.0)];
/// What agentwatch may add inside a session, as a share of what auditd adds.
const INSIDE_TARGET: f64 = 0.1;
/// How much the cost of a decision may differ with the number of rules, in percent.
const FLAT_PERCENT: f64 = 10.0;
/// What a session held to the usual number of rules may pay, in percent of the bare operation.
const RULES_TARGETS: [(&str, f64); 2] = [(OPEN.name, 40.0), (BUILD.name, 3.0)];
/// Nanoseconds from the declaration of a binding intent to when it is in force, on a CPU as that of [`LARGE_TARGET`].
const BINDING_TARGET_NS: u64 = 10_000_000;
/// Instructions of such a CPU in a nanosecond. Waiting takes as long anywhere.
const PER_NS: u64 = 4;
/// What the daemon may have resident, in KiB.
const MEMORY_TARGET_KIB: u64 = 64 * 1024;
/// Instructions in which a large policy comes into force: two seconds of a CPU that does 4·10^9 in one.
const LARGE_TARGET: u64 = 8_000_000_000;
/// Events a second at which nothing may be lost.
const RATE_TARGET: u64 = 50_000;
/// How much memory may differ between the first and the last look during a load, in percent.
const STEADY_PERCENT: f64 = 10.0;

/// All that was found.
#[must_use]
pub fn text(kernel: &str, found: &[Found]) -> String {
    let costs: Vec<&Cost> =
        found.iter().filter_map(|found| if let Found::Cost(it) = found { Some(it) } else { None }).collect();
    let loads: Vec<&Load> =
        found.iter().filter_map(|found| if let Found::Load(it) = found { Some(it) } else { None }).collect();
    let memory: Vec<&Memory> = found
        .iter()
        .filter_map(|found| if let Found::Memory(it) = found { Some(it) } else { None })
        .collect();
    let mut text = format!("\nagentwatch on Linux {kernel}\n");
    if !costs.is_empty() {
        text += &cost_table(&costs);
        text += &rules_table(&costs).unwrap_or_default();
    }
    let large: Vec<&Large> =
        found.iter().filter_map(|found| if let Found::Large(it) = found { Some(it) } else { None }).collect();
    if !large.is_empty() {
        text += &large_table(&large);
    }
    text += &binding_table(found).unwrap_or_default();
    if !loads.is_empty() {
        text += &load_table(&loads);
    }
    if !memory.is_empty() {
        text += &memory_table(&memory);
    }
    text
}

/// One figure as a line.
#[must_use]
pub fn figure(found: &Found) -> String {
    match found {
        Found::Cost(it) => {
            let (instructions, events) = (grouped(it.instructions), it.events);
            format!("{}, {:?}: {instructions} instructions, {events:.2} events", it.operation, it.setting)
        }
        Found::Large(it) => {
            let [instructions, peak] = [it.instructions, it.peak_kib].map(|number| grouped(number as f64));
            format!("a large policy {}: {instructions} instructions, at most {peak} KiB", it.place)
        }
        Found::Binding(it) => {
            let [instructions, ns] = [it.instructions, it.guest_ns].map(|number| grouped(number as f64));
            format!("a binding intent of {} patterns: {instructions} instructions, {ns} ns", it.patterns)
        }
        Found::Load(it) => format!("{}: {} events a second, {} lost", it.name, grouped(it.rate), it.lost),
        Found::Memory(it) => format!("{}: {} KiB resident", it.when, grouped(it.rss_kib as f64)),
    }
}

fn cost_table(costs: &[&Cost]) -> String {
    let mut text =
        "\nInstructions per operation, of the whole machine (one CPU, -icount, mitigations=off)\n\n"
            .to_owned();
    text +=
        &row(["operation", "bare", "outside", "", "inside adds", "events", "auditd adds", "inside/auditd"]);
    for operation in &OPERATIONS {
        let own: Vec<&Cost> = costs.iter().copied().filter(|cost| cost.operation == operation.name).collect();
        text += &cost_rows(operation.name, &own).unwrap_or_default();
    }
    text
}

/// `None` where not even the bare operation was measured.
fn cost_rows(operation: &str, costs: &[&Cost]) -> Option<String> {
    let of = |setting| costs.iter().find(|cost| cost.setting == setting);
    let bare = of(Setting::Bare)?.instructions;
    let percent = |setting| of(setting).map(|cost| (cost.instructions / bare - 1.0) * 100.0);
    let adds = |setting| of(setting).map(|cost| cost.instructions - bare);
    let (outside, inside, audited) =
        (percent(Setting::Outside), adds(Setting::Inside), adds(Setting::Audited));
    let share = inside.zip(audited).map(|(inside, audited)| inside / audited);
    let show = |number: Option<f64>, form: fn(f64) -> String| number.map_or_else(|| "-".to_owned(), form);
    let mut text = row([
        operation,
        &grouped(bare),
        &show(of(Setting::Outside).map(|cost| cost.instructions), grouped),
        &show(outside, |percent| format!("{percent:+.1} %")),
        &show(inside, grouped),
        &show(of(Setting::Inside).map(|cost| cost.events), |events| format!("{events:.2}")),
        &show(audited, grouped),
        &show(share, |share| format!("{share:.3}")),
    ]);
    let target = OUTSIDE_TARGETS.iter().find(|(name, _)| *name == operation);
    if let (Some((_, limit)), Some(percent)) = (target, outside) {
        text += &verdict(percent <= *limit, &format!("outside {percent:+.1} %, at most {limit} %"));
    }
    if let Some(share) = share {
        text +=
            &verdict(share <= INSIDE_TARGET, &format!("inside/auditd {share:.3}, at most {INSIDE_TARGET}"));
    }
    if let Some(drift) = percent(Setting::BareAgain) {
        text += &format!("    bare once more, after agentwatch: {drift:+.1} %, which is noise\n");
    }
    text += &notes(costs);
    Some(text)
}

/// What there is of it: `None` where rules were not measured.
fn rules_table(costs: &[&Cost]) -> Option<String> {
    let of = |operation, setting| {
        let mut found = costs.iter().filter(|cost| cost.operation == operation && cost.setting == setting);
        found.next().map(|cost| cost.instructions)
    };
    let percent = |more: Option<f64>, less: Option<f64>| Some((more? / less? - 1.0) * 100.0);
    let [fewest, .., most] = NUMBERS.map(|number| of(OPEN.name, Setting::Rules(number)));
    fewest?;
    let mut text =
        "\nBy the number of rules; judging is counted without the daemon, building with it\n\n".to_owned();
    text += &row(["operation", "bare", "1 rule", "1,000", "10,000", "", "", ""]);
    for operation in [OPEN.name, OPEN_MOUNTED.name, BUILD.name] {
        let show = |setting| of(operation, setting).map_or_else(|| "-".to_owned(), grouped);
        let [one, usual, many] = NUMBERS.map(|number| show(Setting::Rules(number)));
        text += &row([operation, &show(Setting::Bare), &one, &usual, &many, "", "", ""]);
    }
    if let Some(differs) = percent(most, fewest) {
        text += &verdict(
            differs <= FLAT_PERCENT,
            &format!("10,000 rules {differs:+.1} % over one, at most {FLAT_PERCENT} %"),
        );
    }
    for (operation, limit) in RULES_TARGETS {
        if let Some(percent) = percent(of(operation, Setting::Rules(USUAL)), of(operation, Setting::Bare)) {
            text += &verdict(
                percent <= limit,
                &format!("{operation}: {percent:+.1} % with {USUAL} rules, at most {limit} %"),
            );
        }
    }
    let mounted = |setting| of(OPEN_MOUNTED.name, setting);
    if let Some(percent) = percent(mounted(Setting::Rules(USUAL)), mounted(Setting::Bare)) {
        text += &format!("    {}: {percent:+.1} %\n", OPEN_MOUNTED.name);
    }
    Some(text)
}

fn large_table(all: &[&Large]) -> String {
    let [paths, networks, commands] = PATTERNS.map(|number| grouped(number.into()));
    let mut text = format!(
        "\nA policy of {paths} path patterns, {networks} networks and {commands} command patterns comes into force\n\n"
    );
    text += &row(["", "instructions", "peak, KiB", "", "", "", "", ""]);
    for one in all {
        let [instructions, peak] = [one.instructions, one.peak_kib].map(|number| grouped(number as f64));
        text += &row([&one.place, &instructions, &peak, "", "", "", "", ""]);
        text += &verdict(
            one.instructions <= LARGE_TARGET,
            &format!("at most {} instructions", grouped(LARGE_TARGET as f64)),
        );
        // While a large policy gives way to another, both are there.
        if one.place == PLACES[0] {
            let limit = grouped(MEMORY_TARGET_KIB as f64);
            text += &verdict(one.peak_kib <= MEMORY_TARGET_KIB, &format!("at most {limit} KiB"));
        }
    }
    text
}

/// How soon intents bind.
fn binding_table(found: &[Found]) -> Option<String> {
    let all: Vec<&Binding> = found
        .iter()
        .filter_map(|found| if let Found::Binding(it) = found { Some(it) } else { None })
        .collect();
    all.first()?;
    let mut text =
        "\nA binding intent is in force, by `agentwatch intent declare`: the slowest of ten\n\n".to_owned();
    text += &row(["patterns", "instructions", "ns, with waits", "", "", "", "", ""]);
    for one in all {
        let [instructions, ns] = [one.instructions, one.guest_ns].map(|number| grouped(number as f64));
        text += &row([&one.patterns.to_string(), &instructions, &ns, "", "", "", "", ""]);
        let took_ns = one.instructions / PER_NS + one.guest_ns.saturating_sub(one.instructions);
        let [took, most] = [took_ns, BINDING_TARGET_NS].map(|ns| grouped(ns as f64));
        let limit = format!("{took} ns at {PER_NS} instructions in each: at most {most}");
        text += &verdict(took_ns <= BINDING_TARGET_NS, &limit);
    }
    Some(text)
}

fn notes(costs: &[&Cost]) -> String {
    let lossy = costs.iter().filter(|cost| cost.lost > 0);
    lossy
        .map(|cost| {
            format!("    {:?}: {} records were lost, which made it cheaper\n", cost.setting, cost.lost)
        })
        .collect()
}

fn load_table(loads: &[&Load]) -> String {
    let mut text =
        "\nFile events from one session, two CPUs (-icount; a second is 10^9 instructions of each CPU)\n\n"
            .to_owned();
    text += &row(["run", "wanted/s", "reached/s", "did", "events", "folded", "lost", "unaccounted"]);
    for load in loads {
        let rate = load.rate;
        let unaccounted =
            i128::from(load.did) - i128::from(load.events) - i128::from(load.folded) - i128::from(load.lost);
        let wanted = load.wanted.map_or_else(|| "max".to_owned(), |wanted| grouped(wanted as f64));
        text += &row([
            &load.name,
            &wanted,
            &grouped(rate),
            &load.did.to_string(),
            &load.events.to_string(),
            &load.folded.to_string(),
            &load.lost.to_string(),
            &unaccounted.to_string(),
        ]);
        text += &verdict(unaccounted == 0, "did = events + folded + lost");
        if load.wanted.is_some_and(|wanted| wanted >= RATE_TARGET) {
            // A machine too slow to make so many proves nothing about them.
            let reached = rate >= RATE_TARGET as f64 * 0.98;
            let what =
                if reached { "nothing lost" } else { "nothing lost, at the rate that this machine reached" };
            text += &verdict(load.lost == 0, &format!("{what}: {:.0} events a second", rate));
        }
    }
    text
}

fn memory_table(looks: &[&Memory]) -> String {
    let mut text = "\nMemory of the daemon, KiB\n\n".to_owned();
    text += &row(["when", "resident", "peak", "anonymous", "Pss", "", "", ""]);
    for look in looks {
        let numbers =
            [look.rss_kib, look.peak_kib, look.anonymous_kib, look.pss_kib].map(|kib| grouped(kib as f64));
        let [rss, peak, anonymous, pss] = &numbers;
        text += &row([&look.when, rss, peak, anonymous, pss, "", "", ""]);
    }
    let peak = looks.iter().map(|look| look.rss_kib.max(look.peak_kib)).max().unwrap_or_default();
    text += &verdict(
        peak < MEMORY_TARGET_KIB,
        &format!("at most {} KiB, under {}", grouped(peak as f64), grouped(MEMORY_TARGET_KIB as f64)),
    );
    let loaded: Vec<_> = looks.iter().filter(|look| look.when.starts_with("after")).collect();
    if let (Some(first), Some(last)) = (loaded.first(), loaded.last()) {
        let grown = (last.rss_kib as f64 / first.rss_kib as f64 - 1.0) * 100.0;
        text += &verdict(
            grown <= STEADY_PERCENT,
            &format!("steady: {grown:+.1} % from the first to the last look under load"),
        );
    }
    text
}

fn verdict(reached: bool, what: &str) -> String {
    format!("    {} {what}\n", if reached { "reached:    " } else { "NOT REACHED:" })
}

fn row(cells: [&str; 8]) -> String {
    let [first, rest @ ..] = cells;
    let mut line = format!("{first:34}");
    line.extend(rest.iter().map(|cell| format!(" {cell:>13}")));
    format!("{}\n", line.trim_end())
}

/// A number with commas between its thousands.
fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number <= -0.5 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let groups = [0.0, 999.4, 1000.0, -1234567.0, -0.2].map(grouped);
        assert_eq!(groups, ["0", "999", "1,000", "-1,234,567", "0"]);
    }

    #[test]
    fn a_figure_is_a_line() {
        let cost = Cost {
            operation: "open".to_owned(),
            setting: Setting::Rules(1_000),
            instructions: 6000.4,
            events: 0.5,
            lost: 0,
        };
        assert_eq!(figure(&Found::Cost(cost)), "open, Rules(1000): 6,000 instructions, 0.50 events");
    }

    #[test]
    fn targets_are_judged() {
        let cost = |setting, instructions| {
            Found::Cost(Cost {
                operation: "open + close".to_owned(),
                setting,
                instructions,
                events: 0.5,
                lost: 0,
            })
        };
        let found = |outside, inside| {
            [
                cost(Setting::Bare, 6000.0),
                cost(Setting::Outside, outside),
                cost(Setting::Inside, inside),
                cost(Setting::Audited, 186_000.0),
            ]
        };
        let good = text("6.1", &found(6300.0, 20_000.0));
        assert!(good.contains("reached:     outside +5.0 %, at most 8 %"), "{good}");
        assert!(good.contains("reached:     inside/auditd 0.078, at most 0.1"), "{good}");
        let bad = text("6.1", &found(6600.0, 40_000.0));
        assert_eq!(bad.matches("NOT REACHED").count(), 2, "{bad}");
    }

    #[test]
    fn rules_are_held_against_the_bare_operation_and_each_other() {
        let cost = |operation: &str, setting, instructions| {
            let operation = operation.to_owned();
            Found::Cost(Cost { operation, setting, instructions, events: 0.0, lost: 0 })
        };
        let found = |many| {
            [
                cost(OPEN.name, Setting::Bare, 6000.0),
                cost(OPEN.name, Setting::Rules(1), 8000.0),
                cost(OPEN.name, Setting::Rules(1_000), 8100.0),
                cost(OPEN.name, Setting::Rules(10_000), many),
                cost(BUILD.name, Setting::Bare, 1e9),
                cost(BUILD.name, Setting::Rules(1_000), 1.04e9),
            ]
        };
        let good = text("6.1", &found(8200.0));
        assert!(good.contains("reached:     10,000 rules +2.5 % over one"), "{good}");
        assert!(good.contains("reached:     open + close, judged: +35.0 %"), "{good}");
        assert!(good.contains("NOT REACHED: make, one file of C: +4.0 %"), "{good}");
        assert!(text("6.1", &found(9000.0)).contains("NOT REACHED: 10,000 rules +12.5 %"));
    }

    #[test]
    fn a_large_policy_is_held_to_its_limits() {
        let large = |place: &str, instructions, peak_kib| {
            Found::Large(Large { place: place.to_owned(), instructions, peak_kib })
        };
        let good = text("6.1", &[large(PLACES[0], 6_000_000_000, 60_000), large(PLACES[1], 1, 90_000)]);
        assert!(good.contains("10,000 networks") && !good.contains("NOT REACHED"), "{good}");
        let bad = text("6.1", &[large(PLACES[0], 9_000_000_000, 70_000)]);
        assert_eq!(bad.matches("NOT REACHED").count(), 2, "{bad}");
    }

    #[test]
    fn binding_is_held_to_its_limit() {
        let binding = |guest_ns| Found::Binding(Binding { patterns: 1, instructions: 1, guest_ns });
        let text = text("6.1", &[binding(9_000_000), binding(11_000_000)]);
        assert_eq!(
            [text.matches("NOT REACHED").count(), text.matches("reached: ").count()],
            [1, 1],
            "{text}"
        );
    }

    #[test]
    fn what_is_missing_in_the_account_is_said() {
        let load = |lost| Load {
            name: "x".to_owned(),
            wanted: Some(50_000),
            did: 100,
            rate: 50_000.0,
            events: 60,
            folded: 30,
            lost,
        };
        let exact = text("6.1", &[Found::Load(load(10))]);
        assert!(exact.contains("reached:     did = events"), "{exact}");
        assert!(exact.contains("NOT REACHED: nothing lost"), "{exact}");
        assert!(text("6.1", &[Found::Load(load(9))]).contains("NOT REACHED: did = events"));
    }
}
