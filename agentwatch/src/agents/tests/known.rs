//! What is a known agent, and what only looks like one.

use crate::agents::{AgentTable, Origin, Users};
use crate::policy::{Context, Source, policy_of};

/// The known agent that runs: the first word is the program's path, the rest its arguments after the first.
fn known(table: &AgentTable, line: &str) -> Option<String> {
    let mut words = line.split(' ');
    let program = words.next().unwrap().as_bytes();
    let arguments: Vec<&[u8]> = std::iter::once(program).chain(words.map(str::as_bytes)).collect();
    let index = table.of_program(program, arguments.iter().copied())?;
    assert!(table.why_program(index, program, arguments).is_some(), "{line}");
    table.get(index).map(|agent| agent.name.clone())
}

#[test]
fn known_agents_are_found() {
    let table = AgentTable::new(Vec::new()).unwrap();
    for (agent, line) in [
        ("claude-code", "/home/u/.local/share/claude/versions/2.1.329"),
        ("claude-code", "/usr/lib/node_modules/@anthropic-ai/claude-code/bin/claude.exe -p hello"),
        ("claude-code", "/usr/lib/node_modules/@anthropic-ai/claude-code-linux-x64/claude"),
        (
            "claude-code",
            "/home/u/.vscode-server/extensions/anthropic.claude-code-2.1.0/resources/native-binary/claude",
        ),
        ("claude-code", "/usr/bin/node /usr/bin/claude"),
        (
            "claude-code",
            "/usr/bin/node --no-warnings --enable-source-maps /home/u/.nvm/versions/node/v22.1.0/bin/claude -p x",
        ),
        ("claude-code", "/usr/bin/node /root/.npm/_npx/0f1e/node_modules/.bin/claude"),
        ("claude-code", "/usr/bin/node ./node_modules/.bin/claude"),
        ("claude-code", "/root/.bun/bin/bun run /root/.bun/bin/claude"),
        (
            "claude-code",
            "/usr/bin/node /app/node_modules/@anthropic-ai/claude-agent-sdk/cli.js --output-format stream-json",
        ),
        ("claude-code", "/usr/bin/deno run -A npm:@anthropic-ai/claude-code@2"),
        ("codex", "/usr/bin/node /usr/bin/codex exec hello"),
        (
            "codex",
            "/usr/lib/node_modules/@openai/codex/node_modules/@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex exec",
        ),
        ("codex", "/home/u/bin/codex-x86_64-unknown-linux-musl"),
        ("gemini-cli", "/usr/bin/node /usr/bin/gemini -p hello"),
        (
            "gemini-cli",
            "/usr/bin/node --max-old-space-size=8192 /usr/lib/node_modules/@google/gemini-cli/bundle/gemini.js",
        ),
        ("copilot-cli", "/usr/bin/node /usr/bin/copilot"),
        (
            "copilot-cli",
            "/usr/lib/node_modules/@github/copilot/node_modules/@github/copilot-linux-x64/copilot -p x",
        ),
        ("copilot-cli", "/home/u/.local/bin/copilot --allow-all-tools -p x"),
        (
            "cursor",
            "/home/u/.local/share/cursor-agent/versions/2026.01.02-abc/node --use-system-ca /home/u/.local/share/cursor-agent/versions/2026.01.02-abc/index.js",
        ),
        ("opencode", "/usr/lib/node_modules/opencode-ai/bin/opencode.exe"),
        ("opencode", "/home/u/.opencode/bin/opencode run hello"),
        ("aider", "/usr/bin/python3.12 /home/u/.local/share/uv/tools/aider-chat/bin/aider --model x"),
        ("aider", "/usr/bin/python3.11 -m aider"),
        ("goose", "/home/u/.local/bin/goose session --name x"),
        ("goose", "/home/u/.local/bin/goose"),
        ("goose", "/opt/goose/resources/bin/goosed agent"),
        ("openhands", "/usr/bin/python3.12 /root/.local/bin/openhands --headless -t x"),
        ("openhands", "/usr/bin/python3.12 -m openhands.core.main -t x"),
        ("openhands", "/usr/local/bin/openhands"),
        ("mini-swe-agent", "/usr/bin/python3.13 /root/venv/bin/mini -t x"),
        ("mini-swe-agent", "/usr/bin/python3.13 -u -m minisweagent.run.mini"),
        ("amp", "/home/u/.amp/bin/amp"),
        ("amp", "/usr/lib/node_modules/@sourcegraph/amp/node_modules/@ampcode/cli/bin/amp"),
        ("amp", "/usr/bin/node /usr/bin/amp -x hello"),
        ("qwen-code", "/usr/bin/node /usr/local/bin/qwen"),
        ("qwen-code", "/usr/bin/node /usr/lib/node_modules/@qwen-code/qwen-code/cli.js"),
    ] {
        assert_eq!(known(&table, line).as_deref(), Some(agent), "{line}");
    }
}

#[test]
fn what_only_looks_like_an_agent_is_none() {
    let table = AgentTable::new(Vec::new()).unwrap();
    for line in [
        "/usr/bin/vim claude.md",
        "/usr/bin/grep -r node /usr/bin/claude",
        "/usr/bin/cat /x/claude",
        "/bin/ls /usr/lib/node_modules/@anthropic-ai/claude-code",
        "/usr/bin/node claude-notes.js",
        "/usr/bin/node /srv/claude-notes.js",
        "/usr/bin/node /srv/server.js /usr/bin/claude",
        "/usr/bin/node -e 1",
        "/usr/bin/node",
        "/usr/bin/npm install @anthropic-ai/claude-code",
        "/usr/bin/node /usr/bin/npm install -g @openai/codex",
        "/usr/bin/node /usr/bin/npx @google/gemini-cli",
        "/bin/sh -c claude",
        "/usr/bin/env node /usr/bin/claude",
        "/usr/bin/bash /home/u/.local/bin/cursor-agent",
        "/usr/lib/node_modules/@anthropic-ai/claude-code/vendor/ripgrep/x64-linux/rg claude",
        "/usr/lib/node_modules/@qwen-code/qwen-code/vendor/ripgrep/x64-linux/rg",
        "/home/u/claude/target/debug/app",
        "/usr/share/cursor/cursor --type=utility",
        "/usr/local/bin/copilot svc deploy",
        "/home/u/go/bin/goose postgres user=x up",
        "/home/u/go/bin/goose up",
        "/home/u/go/bin/goose status",
        "/home/u/.cargo/bin/amp notes.txt",
        "/usr/bin/python3 manage.py -m aider",
        "/usr/bin/python3 -m aiderx",
        "/usr/bin/python3 mini.py",
        "/usr/bin/python3 /usr/bin/minidlna",
        "/usr/bin/uv tool install aider-chat",
    ] {
        assert_eq!(known(&table, line), None, "{line}");
    }
}

#[test]
fn the_list_is_whole_and_fits_the_kernel() {
    let table = AgentTable::new(Vec::new()).unwrap();
    let names: Vec<_> = table.agents().iter().map(|agent| agent.name.as_str()).collect();
    let expected = "claude-code codex gemini-cli copilot-cli cursor opencode aider goose openhands mini-swe-agent amp qwen-code";
    assert_eq!(names.join(" "), expected);
    assert!(table.agents().iter().all(|agent| agent.origin == Origin::Builtin && agent.title.is_some()));
    // A fifth of the kernel's table: the rest is for the policy.
    assert!(table.matcher().table.len() < 105_000, "{} entries", table.matcher().table.len());
    assert_eq!(table.users().len(), 0);
    assert_eq!(table.matcher().start_cgroup, 0);
}

#[test]
fn everyday_programs_are_out_within_their_name() {
    let table = AgentTable::new(Vec::new()).unwrap();
    let matcher = table.matcher();
    let dies = |start: u32, name: &str| {
        let step = |state: u32, byte: u8| {
            let class = usize::from(matcher.classes[usize::from(byte)]);
            matcher.table[state as usize * matcher.class_count as usize + class]
        };
        name.bytes().chain([0]).fold(start, step) == 0
    };
    for name in
        "sh bash dash ls cat cc1 gcc ld as make git grep sed awk cp mv rm env sudo systemd sshd".split(' ')
    {
        assert!(dies(matcher.start_program, name), "{name}");
        assert!(dies(matcher.start_command, name), "{name}");
    }
    assert!(!dies(matcher.start_program, "claude"));
}

#[test]
fn a_policy_comes_first_and_replaces_by_name() {
    let text = "version: 1\nagents:\n  zeta: {owner: o, match: [{exec: [\"**/claude\"]}]}\n  codex: {owner: o, match: [{user: [ci-bot]}]}\n";
    let source = Source { name: "policy.yaml".into(), text: text.to_owned() };
    let users = Users::parse("ci-bot:x:1001:1001::/:/bin/false\n");
    let (policy, _) = policy_of(vec![source], Context { users: &users, now_ns: 0 }).unwrap();
    let table = AgentTable::new(policy.agent_specs()).unwrap();
    assert_eq!(table.index_of("codex"), Some(0));
    assert_eq!(table.index_of("zeta"), Some(1));
    assert_eq!(table.index_of("claude-code"), Some(2));
    assert_eq!(table.of_program(b"/usr/bin/claude", []), Some(1));
    assert_eq!(table.of_program(b"/usr/bin/codex", []), None);
    assert_eq!(table.of_user(1001), Some(0));
    assert_eq!(table.users().collect::<Vec<_>>(), [(1001, 0)]);
    assert_eq!(table.why_user(0, 1001).unwrap().to_string(), "user `ci-bot`");
    assert_eq!(table.why_program(1, b"/usr/bin/claude", []).unwrap().to_string(), "exec `**/claude`");
}
