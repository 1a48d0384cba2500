//! `firn man`: manual pages from the one definition of the command line, one page per verb.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::failure::{EXIT_DONE, Explain};
use crate::mounts;

/// Write the manual pages into a directory
///
/// Writes `firn.1`, one page per verb, and those of mount.firn and umount.firn. For all users:
/// `firn man /usr/local/share/man/man1`.
#[derive(Debug, Args)]
#[command(name = "man")]
pub(super) struct ManPages {
    /// Directory to write to; made when missing
    dir: PathBuf,
}

impl ManPages {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let name = mounts::shown(&self.dir);
        fs::create_dir_all(&self.dir).with_context(|| format!("making {name}"))?;
        self.write()
            .with_context(|| format!("writing manual pages to {name}"))
            .hint("name a directory you may write to")?;
        Ok(EXIT_DONE)
    }

    fn write(&self) -> io::Result<()> {
        clap_mangen::generate_to(super::command(), &self.dir)?;
        self.keep_lines("firn-policy.1")?;
        for helper in super::helpers() {
            let mut page = Vec::new();
            let file = format!("{}.8", helper.get_name());
            clap_mangen::Man::new(helper).section("8").render(&mut page)?;
            fs::write(self.dir.join(file), page)?;
        }
        Ok(())
    }

    /// Has what stands behind the options of a page keep its lines: it is an example.
    fn keep_lines(&self, file: &str) -> io::Result<()> {
        const HEADING: &str = "\n.SH EXTRA\n";
        let path = self.dir.join(file);
        let page = fs::read_to_string(&path)?;
        let Some((before, extra)) = page.split_once(HEADING) else { return Ok(()) };
        let (example, after) = extra.split_once("\n.SH ").unwrap_or((extra, ""));
        let after = if after.is_empty() { String::new() } else { format!("\n.SH {after}") };
        fs::write(path, format!("{before}\n.SH EXAMPLE\n.nf\n{example}\n.fi{after}"))
    }
}
