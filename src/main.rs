//! The `firn` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    firn::cli::main(std::env::args_os())
}
