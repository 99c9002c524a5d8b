//! The scripted actor as a program: see [`tests::act`].

fn main() -> anyhow::Result<std::process::ExitCode> {
    tests::act::main()
}
