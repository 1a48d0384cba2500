//! `firn completions`: shell completions from the one definition of the command line.

use anyhow::Context;
use clap::Args;
use clap_complete::Shell;

use crate::failure::EXIT_DONE;
use crate::report;

/// Print the completion script of a shell
///
/// For bash: `firn completions bash > /etc/bash_completion.d/firn`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "firn", &mut script);
        report::print(&String::from_utf8(script).context("completion script")?)?;
        Ok(EXIT_DONE)
    }
}
