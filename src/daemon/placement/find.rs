//! Looking for files by where they lie, and for pins. The tree is walked page by page, and what fits
//! is sent as it is found.

use std::time::SystemTime;

use firn_mount::core::Core;
use firn_mount::types::{Attr, FileKind, Ino};

use super::pins;
use crate::control::placement::Finding;
use crate::control::protocol::Files;
use crate::control::server::Outbox;
use crate::daemon::assemble::Parts;
use crate::daemon::inspect;
use crate::report::tier::PinLine;

/// Sends each file that fits.
pub(super) fn find(parts: &Parts, finding: &Finding, out: &mut Outbox) -> anyhow::Result<()> {
    let files = &finding.files;
    let now = parts.clock.now();
    inspect::walk(&parts.volume, Ino(files.ino), &files.name, true, &mut |path, attr| {
        if !may_fit(finding, attr, now) {
            return Ok(());
        }
        let line = inspect::line(&parts.volume, path, attr);
        let fits = finding.states.is_empty()
            || line.state.as_ref().is_some_and(|state| finding.states.contains(state));
        if fits { Ok(out.item(&line)?) } else { Ok(()) }
    })
}

/// What can be told without looking for a file's blocks.
fn may_fit(finding: &Finding, attr: &Attr, now: SystemTime) -> bool {
    let age_s = now.duration_since(attr.mtime).unwrap_or_default().as_secs();
    attr.kind == FileKind::File
        && finding.min_size_bytes.is_none_or(|least| attr.size >= least)
        && finding.max_size_bytes.is_none_or(|most| attr.size <= most)
        && finding.older_s.is_none_or(|older| age_s > older)
        && finding.newer_s.is_none_or(|newer| age_s < newer)
}

/// Sends each pin that was set at `files` or below.
pub(super) fn pins(parts: &Parts, files: &Files, out: &mut Outbox) -> anyhow::Result<()> {
    let mut look = |path: &str, ino| -> anyhow::Result<()> {
        // Whatever vanished meanwhile is pinned no more.
        let Ok(value) = parts.volume.getxattr(ino, pins::NAME) else { return Ok(()) };
        Ok(out.item(&pin_line(path, &value))?)
    };
    let root = Ino(files.ino);
    if parts.volume.getattr(root)?.kind == FileKind::Directory {
        look(&files.name, root)?;
    }
    inspect::walk(&parts.volume, root, &files.name, true, &mut |path, attr| look(path, attr.ino))
}

/// A pin as its value says: `hot`, `cold`, or either with `until SECONDS` after 1970.
fn pin_line(path: &str, value: &[u8]) -> PinLine {
    let text = String::from_utf8_lossy(value);
    let (tier, until) = match text.split_once(" until ") {
        Some((tier, secs)) => (tier, secs.parse().ok().map(crate::utc::rfc3339)),
        None => (text.as_ref(), None),
    };
    PinLine {
        path: path.to_owned(),
        tier: tier.to_owned(),
        source: "explicit".to_owned(),
        from: None,
        until,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_says_where_to_and_until_when() {
        let hot = pin_line("/a", b"hot");
        assert_eq!((hot.tier.as_str(), hot.until), ("hot", None));
        let soon = pin_line("/a", b"hot until 1795276026");
        assert_eq!(
            (soon.tier.as_str(), soon.until.as_deref()),
            ("hot", Some("2026-11-21T15:47:06Z"))
        );
    }
}
