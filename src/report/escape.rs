//! Names in tables, lines and messages: no name ends a line or a field, or speaks to the terminal.

use std::fmt::Write;

use super::names;

/// A name in which control characters and backslashes are `\\0ooo`, in octal, as zfs-diff(8) has
/// them.
pub fn escaped(name: &str) -> String {
    with_octal(name, |character| character.is_control() || character == '\\')
}

/// A message with names in it, in which control characters are as in [`escaped`]. Backslashes stay:
/// whatever has been through here before is left as it is.
pub fn visible(message: &str) -> String {
    with_octal(message, char::is_control)
}

/// A whole listing, in which only what stands for a byte that is not UTF-8 is as in [`escaped`].
pub fn readable(listing: &str) -> String {
    with_octal(listing, |_| false)
}

fn with_octal(name: &str, is_meant: impl Fn(char) -> bool) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if let Some(byte) = names::byte_of(character) {
            let _ = write!(text, "\\{byte:04o}");
        } else if is_meant(character) {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                // Writing to a string does not fail.
                let _ = write!(text, "\\{byte:04o}");
            }
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::report::{datasets, policy, properties, snapshots, tier};

    const NAME: &str = "/m/a\nb\tc\\d";
    const SHOWN: &str = "/m/a\\0012b\\0011c\\0134d";

    #[test]
    fn no_name_ends_a_line_or_a_field_of_a_listing() {
        let name = || NAME.to_owned();
        let dataset =
            datasets::DatasetLine { dataset: name(), origin: Some(name()), ..Default::default() };
        let snapshot =
            snapshots::SnapshotLine { snapshot: name(), message: name(), ..Default::default() };
        let property = properties::PropertyLine {
            dataset: name(),
            value: name(),
            source: format!("inherited from {NAME}"),
            ..Default::default()
        };
        let hold = snapshots::HoldLine { snapshot: name(), tag: name(), created: String::new() };
        let properties = properties::Listing { properties: vec![property] };
        let destroyed = snapshots::Destroyed {
            datasets: vec![name()],
            snapshots: vec![name()],
            ..Default::default()
        };
        let rolled_back = snapshots::RolledBack { snapshot: name(), destroyed: vec![name()] };
        let sent =
            snapshots::Sent { snapshot: Some(name()), from: Some(name()), ..Default::default() };
        let du = tier::DuLine { path: name(), lost_bytes: 1, ..Default::default() };
        let pin = tier::PinLine { path: name(), from: Some(name()), ..Default::default() };
        let job = tier::JobLine { what: name(), reason: Some(name()), ..Default::default() };
        let moves =
            vec![policy::MoveLine { path: name(), why: name(), ..policy::MoveLine::default() }];
        let plan = policy::PlanReport { moves, ..Default::default() };
        let bare = policy::PlanReport::default().text().lines().count();
        let listings = [
            (tier::Du { directories: vec![du] }.text(), 2, 3),
            (tier::Pins { pins: vec![pin] }.text(), 2, 2),
            (tier::Jobs { jobs: vec![job] }.text(), 2, 2),
            (plan.text(), 2, 2 + bare),
            (datasets::Listing { datasets: vec![dataset] }.text(), 2, 2),
            (snapshots::Listing { snapshots: vec![snapshot] }.text(), 2, 2),
            (snapshots::Holds { holds: vec![hold] }.text(), 2, 2),
            (properties.text(), 3, 2),
            (properties.script(), 3, 1),
            (destroyed.text(), 2, 2),
            (rolled_back.text(), 2, 2),
            (sent.text(), 2, 1),
            (snapshots::Received { snapshot: name(), ..Default::default() }.text(), 1, 1),
        ];
        for (text, names, lines) in listings {
            assert_eq!(
                (text.matches(SHOWN).count(), text.lines().count()),
                (names, lines),
                "{text}"
            );
        }
        assert_eq!(properties.script().split('\t').count(), 4);
    }
}
