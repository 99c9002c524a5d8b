//! `cargo xtask`: everything that one does with this repository.

use std::process::ExitCode;

use clap::Parser;
use xtask::cmd::say;
use xtask::{bench, bless, demo, setup, test, vm};

/// Set-up, virtual machines, tests, demo and benchmarks of agentwatch.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    Setup(setup::Args),
    Test(test::Args),
    Demo(demo::Args),
    Bench(bench::Args),
    Bless(bless::Args),
    Vm(vm::Args),
}

/// What `xtask` itself ends with if it fails. A command in a guest has its own exit status.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let result = match Xtask::parse() {
        Xtask::Setup(args) => setup::main(&args).map(|()| 0),
        Xtask::Test(args) => test::main(&args),
        Xtask::Demo(args) => demo::main(&args),
        Xtask::Bench(args) => bench::main(&args),
        Xtask::Bless(args) => bless::main(&args).map(|()| 0),
        Xtask::Vm(args) => vm::main(&args),
    };
    match result {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error) => {
            say(&format!("xtask: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}
