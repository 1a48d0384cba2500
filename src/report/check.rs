//! What `firn check` says. The JSON object is [`Report`]; its fields are only ever added to.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::units::rounded_bytes;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Directory of the volume.
    pub volume: String,
    /// Nothing is damaged, as far as was looked.
    pub clean: bool,
    /// Segments looked at.
    pub segments: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Inodes looked at.
    pub inodes: u64,
    /// Directory entries looked at.
    pub entries: u64,
    /// References from files to blocks that were followed.
    pub block_references: u64,
    /// Files, now or in snapshots, whose content was compared with their digest.
    pub digests: u64,
    /// The catalog was made again.
    pub catalog_rebuilt: bool,
    /// Damage to the namespace by its kind.
    pub kinds: BTreeMap<String, Kind>,
    /// What was damaged and is whole again.
    pub repaired: Vec<Damage>,
    /// What has no place of its own any more and is in `lost+found`.
    pub lost_found: Vec<Damage>,
    /// Records that could not be made good and are gone, but for what was kept of them.
    pub dropped: Vec<Damage>,
    /// The directory with all records that a repair replaced or removed.
    pub kept: Option<String>,
    /// How much is damaged; `damage` names at most 10,000.
    pub found: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// Damaged blocks that nothing refers to, such as a power cut leaves of writes that nobody had
    /// synced; they are no damage.
    pub unneeded: u64,
}

/// How much of one kind of damage there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// Found by the first check.
    pub found: u64,
    /// Repaired.
    pub repaired: u64,
    /// Put in `lost+found`.
    pub lost_found: u64,
    /// Gone.
    pub dropped: u64,
    /// Still there.
    pub remaining: u64,
}

/// One thing that is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// `hot segment`, `cold segment`, `namespace`, `file` or `backup`.
    pub part: String,
    /// Which.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
    /// Files that it hits, some of them when there are many.
    pub paths: Vec<String>,
    /// Parity or another copy can make it good.
    pub repairable: bool,
}

impl Report {
    /// The counts of a kind.
    pub fn kind(&mut self, name: &str) -> &mut Kind {
        self.kinds.entry(name.to_owned()).or_default()
    }

    /// Draws the conclusion.
    pub fn finish(&mut self) {
        self.clean = self.found == 0;
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let done = [
            ("repaired", &self.repaired),
            ("lost+found", &self.lost_found),
            ("dropped", &self.dropped),
        ];
        for (fate, all) in done {
            for Damage { part, place, what, paths, .. } in all {
                let _ = writeln!(text, "{fate}: {part} {place}: {what}");
                for path in paths.iter().filter(|path| !path.is_empty()) {
                    let _ = writeln!(text, "    {path}");
                }
            }
        }
        for (name, kind) in &self.kinds {
            let Kind { found, repaired, lost_found, dropped, remaining } = kind;
            let _ = writeln!(
                text,
                "{name}: {found} found, {repaired} repaired, {lost_found} in lost+found, \
                 {dropped} dropped, {remaining} remain"
            );
        }
        if let Some(kept) = &self.kept {
            let _ = writeln!(text, "what was replaced or removed is kept in {kept}");
        }
        for damage in &self.damage {
            let _ = writeln!(text, "{} {}: {}", damage.part, damage.place, damage.what);
            if damage.repairable {
                text.push_str("    can be repaired: --repair\n");
            }
            for path in &damage.paths {
                let _ = writeln!(text, "    {path}");
            }
        }
        let _ = write!(
            text,
            "{}: {} segments with {} blocks ({} read), {} inodes, {} block references",
            self.volume,
            self.segments,
            self.blocks,
            rounded_bytes(self.read_bytes),
            self.inodes,
            self.block_references
        );
        if self.digests > 0 {
            let _ = write!(text, ", {} digests of files", self.digests);
        }
        if self.catalog_rebuilt {
            text.push_str(", catalog rebuilt");
        }
        if !self.repaired.is_empty() {
            let _ = write!(text, ", {} repaired", self.repaired.len());
        }
        if self.unneeded > 0 {
            let _ = write!(text, ", {} torn blocks that nothing refers to", self.unneeded);
        }
        match self.found {
            0 => text.push_str(": clean\n"),
            1 => text.push_str(": 1 thing is damaged\n"),
            found => {
                let _ = writeln!(text, ": {found} things are damaged");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_names_the_files_it_hits() {
        let mut report = Report { volume: "/v".to_owned(), ..Report::default() };
        report.finish();
        assert!(report.clean && report.text().ends_with(": clean\n"));
        report.found = 1;
        report.damage.push(Damage {
            part: "hot segment".to_owned(),
            place: "0001".to_owned(),
            what: "it is torn".to_owned(),
            paths: vec!["/a/b".to_owned()],
            repairable: false,
        });
        report.finish();
        assert!(!report.clean);
        assert!(report.text().starts_with("hot segment 0001: it is torn\n    /a/b\n"));
    }
}
