use proptest::prelude::*;

use super::*;

/// The meaning of a pattern read off its text, one character at a time, with no idea of components, states
/// or expansions.
fn means(pattern: &[u8], text: &[u8], separator: Option<u8>) -> bool {
    let inside = |byte: u8| Some(byte) != separator;
    match pattern {
        [] => text.is_empty(),
        [b'/', b'*', b'*', b'/', rest @ ..] if separator.is_some() => {
            let slash = [b"/".as_slice(), rest].concat();
            means(&slash, text, separator)
                || text.first() == Some(&b'/')
                    && (1..text.len()).any(|cut| means(&slash, &text[cut..], separator))
        }
        [b'*', b'*', rest @ ..] => (0..=text.len()).any(|cut| means(rest, &text[cut..], separator)),
        [b'*', rest @ ..] => (0..=text.len())
            .take_while(|&cut| text[..cut].iter().all(|&byte| inside(byte)))
            .any(|cut| means(rest, &text[cut..], separator)),
        [b'?', rest @ ..] => {
            text.first().is_some_and(|&byte| inside(byte)) && means(rest, &text[1..], separator)
        }
        [b'[', b'!', byte, b']', rest @ ..] => {
            text.first().is_some_and(|first| first != byte && inside(*first))
                && means(rest, &text[1..], separator)
        }
        [b'[', low, b'-', high, b']', rest @ ..] => {
            text.first().is_some_and(|first| (low..=high).contains(&first))
                && means(rest, &text[1..], separator)
        }
        [b'{', rest @ ..] => {
            let close = rest.iter().position(|&byte| byte == b'}').unwrap();
            rest[..close]
                .split(|&byte| byte == b',')
                .any(|part| means(&[part, &rest[close + 1..]].concat(), text, separator))
        }
        [byte, rest @ ..] => text.first() == Some(byte) && means(rest, &text[1..], separator),
    }
}

/// As [`means`], with alternatives first, and a pattern without wildcards covering what is below it.
fn path_means(pattern: &str, path: &[u8]) -> bool {
    if let Some((head, rest)) = pattern.split_once('{') {
        let (inner, tail) = rest.split_once('}').unwrap();
        return inner.split(',').any(|part| path_means(&format!("{head}{part}{tail}"), path));
    }
    let pattern = pattern.strip_suffix('/').unwrap_or(pattern);
    let plain = !pattern.contains(['*', '?', '[']);
    means(pattern.as_bytes(), path, Some(b'/'))
        || plain && means(format!("{pattern}/**").as_bytes(), path, Some(b'/'))
}

fn path_pattern() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "c", "ab", "é"]).prop_map(str::to_owned),
        3 => prop::sample::select(vec!["*", "**", "?", "[a-b]", "[!a]", "{a,b}", "{a,b*,c/a,}"]).prop_map(str::to_owned),
    ];
    let component = prop_oneof![
        4 => prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat()),
        1 => Just("**".to_owned()),
    ];
    let head = prop::sample::select(vec!["", "", "**", "**a"]);
    // `***` means `**`, which the oracle does not know.
    let tidy = |mut text: String| {
        while text.contains("***") {
            text = text.replace("***", "**");
        }
        text
    };
    (head, prop::collection::vec(component, 1..4))
        .prop_map(move |(head, components)| tidy(format!("{head}/{}", components.join("/"))))
        .prop_filter("a pattern that can be read and is small", |text| {
            // The oracle expands alternatives as text, in which two stars would become one `**`.
            !text.contains("*{")
                && !text.contains("}*")
                && PathGlob::parse(text).is_ok_and(|glob| glob.reversed().count() <= 16)
        })
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(b"aabbcx\xc3\xa9\xff".to_vec());
    let component = prop::collection::vec(byte, 1..4);
    prop::collection::vec(component, 1..6)
        .prop_map(|components| components.iter().flat_map(|c| [b"/".as_slice(), c].concat()).collect())
}

fn command_pattern() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "b",
        " ",
        "/",
        "ab",
        "*",
        "*",
        "**",
        "?",
        "[a-b]",
        "[!a]",
        "{a,b b*,}",
    ]);
    prop::collection::vec(piece, 1..7)
        .prop_map(|pieces| pieces.concat().replace("***", "**").replace("***", "**"))
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"aabb  /c\n\xff".to_vec()), 0..12)
}

/// The lowest index that matches.
fn lowest<T>(patterns: &[T], matches: impl Fn(&T) -> bool) -> Option<AgentIndex> {
    patterns.iter().position(matches).map(|index| u32::try_from(index).unwrap())
}

fn programs(patterns: &[PathGlob]) -> CompiledMatcher {
    CompiledMatcher::compile((0..).zip(patterns.iter().map(Pattern::Program))).unwrap()
}

fn commands(patterns: &[&str]) -> CompiledMatcher {
    let globs: Vec<_> = patterns.iter().map(|text| CommandGlob::parse(text).unwrap()).collect();
    CompiledMatcher::compile((0..).zip(globs.iter().map(Pattern::Command))).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn programs_match_as_their_patterns_read(
        patterns in prop::collection::vec(path_pattern(), 1..4),
        paths in prop::collection::vec(path(), 1..20),
    ) {
        let globs: Vec<_> = patterns.iter().map(|text| PathGlob::parse(text).unwrap()).collect();
        let compiled = programs(&globs);
        for path in &paths {
            let expected = lowest(&patterns, |text| path_means(text, path));
            prop_assert_eq!(lowest(&globs, |glob| glob.matches(path)), expected, "{:?} {}", patterns, path.escape_ascii());
            prop_assert_eq!(compiled.run_program(path), expected, "{:?} {}", patterns, path.escape_ascii());
        }
    }

    #[test]
    fn commands_match_as_their_patterns_read(
        patterns in prop::collection::vec(command_pattern(), 1..5),
        texts in prop::collection::vec(command(), 1..20),
    ) {
        let globs: Vec<_> = patterns.iter().map(|text| CommandGlob::parse(text).unwrap()).collect();
        let compiled = CompiledMatcher::compile((0..).zip(globs.iter().map(Pattern::Command))).unwrap();
        for text in &texts {
            let expected = lowest(&patterns, |pattern| means(pattern.as_bytes(), text, None));
            prop_assert_eq!(lowest(&globs, |glob| glob.matches(text)), expected, "{:?} {}", patterns, text.escape_ascii());
            prop_assert_eq!(compiled.run_command(text), expected, "{:?} {}", patterns, text.escape_ascii());
        }
    }

    #[test]
    fn cgroups_match_with_all_below(
        patterns in prop::collection::vec(path_pattern(), 1..4),
        paths in prop::collection::vec(path(), 1..20),
    ) {
        let globs: Vec<_> = patterns.iter().map(|text| CgroupGlob::parse(text).unwrap()).collect();
        let compiled = CompiledMatcher::compile((0..).zip(globs.iter().map(Pattern::Cgroup)));
        // Several `**` between alternatives can need more than the kernel has room for, and are refused.
        prop_assume!(!matches!(compiled, Err(CompileError::TooManyStates)));
        let compiled = compiled.unwrap();
        for path in &paths {
            let cuts = (1..=path.len()).filter(|&cut| path.get(cut).is_none_or(|&byte| byte == b'/'));
            let above: Vec<_> = cuts.map(|cut| &path[..cut]).collect();
            let expected = lowest(&patterns, |text| above.iter().any(|path| path_means(text, path)));
            prop_assert_eq!(compiled.run_cgroup(path), expected, "{:?} {}", patterns, path.escape_ascii());
        }
    }

    #[test]
    fn scripts_match_alone_as_together(
        files in prop::collection::vec(prop::sample::select(vec!["**/a", "**/a/b", "/a/*/b", "**/-a", "/a b"]), 1..4),
        interpreters in prop::collection::vec(prop::sample::select(vec!["{n,n r}", "n", "n*", "b"]), 4),
        texts in prop::collection::vec("[nb](r| r| -[ax]| -/a|/a|/b| /a| /a/b| a| b| -){0,7}", 1..40),
    ) {
        let globs: Vec<_> = files.iter().zip(&interpreters)
            .map(|(file, by)| ScriptGlob::file(by, file).unwrap())
            .chain([ScriptGlob::word("n*", Some("-a"), "a*").unwrap()])
            .collect();
        let compiled = CompiledMatcher::compile((0..).zip(globs.iter().map(Pattern::Script))).unwrap();
        for text in &texts {
            let expected = lowest(&globs, |glob| glob.matches(text.as_bytes()));
            prop_assert_eq!(compiled.run_command(text.as_bytes()), expected, "{:?} {}", globs, text);
        }
    }

    #[test]
    fn a_state_that_matches_nothing_is_the_dead_one(patterns in prop::collection::vec(path_pattern(), 1..4)) {
        let globs: Vec<_> = patterns.iter().map(|text| PathGlob::parse(text).unwrap()).collect();
        let compiled = programs(&globs);
        let stride = compiled.class_count as usize;
        let mut alive: Vec<bool> = compiled.accept.iter().map(|&accept| accept != 0).collect();
        for _ in 0..alive.len() {
            for state in 0..alive.len() {
                alive[state] |= compiled.table[state * stride..(state + 1) * stride].iter().any(|&to| alive[to as usize]);
            }
        }
        prop_assert!(!alive[0]);
        prop_assert!(alive.iter().skip(1).all(|&is| is));
    }

    #[test]
    fn no_text_makes_the_parser_fail_badly(text in "[/a*?{},!\\[\\]\\\\ -]{0,24}") {
        let _ = PathGlob::parse(&text);
        let _ = CommandGlob::parse(&text);
        let _ = CgroupGlob::unit(&text);
        let _ = ScriptGlob::file("node", &text);
    }
}

#[test]
fn a_folder_means_all_that_is_in_it_where_that_is_asked_for() {
    for (pattern, path, with_below) in [
        ("/home/*/work", "/home/ada/work", true),
        ("/home/*/work", "/home/ada/work/a/b", true),
        ("/home/*/work/", "/home/ada/work/a", true),
        ("/home/{ada,bob}*/work", "/home/ada/work/a", true),
        ("/home/*/work", "/home/ada/works", false),
        ("/home/*/id_*", "/home/ada/id_rsa/x", false),
        ("/srv/**/data", "/srv/a/data/x", false),
        ("**/.env", "/srv/.env/x", false),
        ("/srv/{a,b*}", "/srv/a/x", true),
        ("/srv/{a,b*}", "/srv/b/x", false),
        ("/srv", "/srv/a/x", true),
        ("/", "/x/y", true),
    ] {
        let glob = PathGlob::parse_with_below(pattern).unwrap();
        assert_eq!(glob.matches(path.as_bytes()), with_below, "{pattern} {path}");
        let compiled = CompiledMatcher::compile([(0, Pattern::Program(&glob))]).unwrap();
        assert_eq!(compiled.run_program(path.as_bytes()).is_some(), with_below, "{pattern} {path}");
    }
    assert!(!PathGlob::parse("/home/*/work").unwrap().matches(b"/home/ada/work/a"));
}

#[test]
fn a_plain_path_covers_what_is_below_it() {
    let glob = PathGlob::parse("/opt/agents/").unwrap();
    assert!(glob.matches(b"/opt/agents"));
    assert!(glob.matches(b"/opt/agents/bin/x"));
    assert!(!glob.matches(b"/opt/agents2"));
    assert!(PathGlob::parse("/").unwrap().matches(b"/any/thing"));
}

#[test]
fn a_non_agent_is_dead_at_its_first_byte() {
    let globs = [PathGlob::parse("**/claude").unwrap()];
    let compiled = programs(&globs);
    let class = usize::from(compiled.classes[usize::from(b'x')]);
    let next = compiled.table[compiled.start_program as usize * compiled.class_count as usize + class];
    assert_eq!(next, 0);
    assert_eq!((compiled.start_command, compiled.start_cgroup), (0, 0));
}

#[test]
fn units_match_wherever_they_are() {
    let glob = CgroupGlob::unit("ci-agent@*.service").unwrap();
    let compiled = CompiledMatcher::compile([(3, Pattern::Cgroup(&glob))]).unwrap();
    for (path, agent) in [
        ("/system.slice/system-ci.slice/ci-agent@7.service", Some(3)),
        ("/ci-agent@7.service/sub/deeper", Some(3)),
        ("/system.slice/ci-agent.service", None),
        ("/system.slice/xci-agent@7.service", None),
    ] {
        assert_eq!(compiled.run_cgroup(path.as_bytes()), agent, "{path}");
    }
}

#[test]
fn a_script_is_not_any_argument_with_such_a_path() {
    let glob = ScriptGlob::file("{node,bun run}", "**/bin/claude").unwrap();
    let compiled = CompiledMatcher::compile([(0, Pattern::Script(&glob))]).unwrap();
    for (command, is) in [
        ("node /usr/bin/claude", true),
        ("node --max-old-space-size=8192 --no-warnings /usr/bin/claude -p hello world", true),
        ("bun run /home/u/.bun/bin/claude", true),
        ("node /srv/app.js /usr/bin/claude", false),
        ("node /usr/bin/claude2", false),
        ("node", false),
        ("nodemon /usr/bin/claude", false),
        ("vim /usr/bin/claude", false),
    ] {
        assert_eq!(compiled.run_command(command.as_bytes()).is_some(), is, "{command}");
        assert_eq!(glob.matches(command.as_bytes()), is, "{command}");
    }
    let module = ScriptGlob::word("python*", Some("-m"), "aider").unwrap();
    assert!(module.matches(b"python3.12 -u -m aider --model x"));
    assert!(!module.matches(b"python3.12 -u -m aiderx"));
    assert!(!module.matches(b"python3 manage.py -m aider"));
}

#[test]
fn the_command_text_is_what_the_kernel_reads() {
    let arguments: [&[u8]; 3] = [b"/usr/bin/claude", b"a b", b"c"];
    assert_eq!(command_text(b"/usr/bin/node", arguments), b"node a b c");
    // The kernel reads a bounded number of bytes, of which the first argument and its NUL take 4.
    let long = vec![b'x'; 5000];
    let arguments: [&[u8]; 2] = [b"abc", &long];
    let kept = MATCH_COMMAND_BYTES as usize - 4;
    assert_eq!(command_text(b"/usr/bin/node", arguments).len(), "node".len() + kept);
    assert_eq!(command_text(b"/usr/bin/node", []), b"node");
}

#[test]
fn errors_say_what_and_where() {
    let error = |text: &str| PathGlob::parse(text).unwrap_err();
    assert_eq!(error("claude"), GlobError { offset: 0, problem: Problem::NotAbsolute });
    assert_eq!(error("/a/[b"), GlobError { offset: 3, problem: Problem::OpenClass });
    assert_eq!(error("/a/{b,c"), GlobError { offset: 3, problem: Problem::OpenBrace });
    assert_eq!(error("/a/b}"), GlobError { offset: 4, problem: Problem::StrayBrace });
    assert_eq!(error("/a//b"), GlobError { offset: 3, problem: Problem::EmptyComponent });
    assert_eq!(error("/a/../b"), GlobError { offset: 3, problem: Problem::DotComponent });
    assert_eq!(error("/a/[z-a]"), GlobError { offset: 4, problem: Problem::BackwardRange });
    assert_eq!(error("/a\\"), GlobError { offset: 2, problem: Problem::TrailingEscape });
    assert_eq!(error(""), GlobError { offset: 0, problem: Problem::Empty });
    assert_eq!(error(&format!("/{}", "{a,b}".repeat(9))).problem, Problem::TooManyExpansions);
    assert_eq!(error(&format!("/a{}", "**b".repeat(9))).problem, Problem::TooManyExpansions);
    assert_eq!(CgroupGlob::unit("a/b").unwrap_err(), GlobError { offset: 1, problem: Problem::SlashInUnit });
    assert!(error("/a/[b").to_string().contains("add `]`"));
}

#[test]
fn a_thousand_sensible_patterns_fit_the_kernel() {
    let paths: Vec<_> =
        (0..500).map(|n| PathGlob::parse(&format!("/opt/**/bin/agent-{n}")).unwrap()).collect();
    let lines: Vec<_> =
        (0..500).map(|n| CommandGlob::parse(&format!("tool{} *agent-{n}*", n % 50)).unwrap()).collect();
    let patterns = paths.iter().map(Pattern::Program).chain(lines.iter().map(Pattern::Command));
    let compiled = CompiledMatcher::compile((0..).zip(patterns)).unwrap();
    assert_eq!(compiled.run_program(b"/opt/tools/x/bin/agent-77"), Some(77));
    assert_eq!(compiled.run_command(b"tool7 --x agent-57"), Some(557));
    // Without the dropping of what cannot count this does not fit.
    assert!(compiled.accept.len() < 13_000, "{} states", compiled.accept.len());
}

#[test]
fn patterns_that_do_not_fit_are_refused() {
    let patterns: Vec<_> = (0..40).map(|n| format!("*a{n}x*b{n}y*c{n}z")).collect();
    let globs: Vec<_> = patterns.iter().map(|text| CommandGlob::parse(text).unwrap()).collect();
    let error = CompiledMatcher::compile((0..).zip(globs.iter().map(Pattern::Command))).unwrap_err();
    assert_eq!(error, CompileError::TooManyStates);
    assert!(error.to_string().contains("32768 states"));
}

#[test]
fn many_agents_with_stars_stay_small() {
    let patterns: Vec<_> = (0..60).map(|n| format!("node *agent{n:02}*")).collect();
    let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
    let compiled = commands(&patterns);
    assert!(compiled.accept.len() < 5000, "{} states", compiled.accept.len());
    assert_eq!(compiled.run_command(b"node agent59 agent07 agent30"), Some(7));
}
