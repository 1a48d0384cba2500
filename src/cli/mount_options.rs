//! The words behind `-o` that belong to `mount(8)`, systemd and other programs. They are left out
//! here; what is left is the filesystem's own and refused when unknown.

/// Words that say how, when or by whom a mount is made, or that mean nothing to Firn.
const GENERIC: &[&str] = &[
    "atime",
    "auto",
    "defaults",
    "diratime",
    "group",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noauto",
    "nodiratime",
    "nofail",
    "nogroup",
    "noiversion",
    "nolazytime",
    "nomand",
    "noowner",
    "norelatime",
    "nostrictatime",
    "nouser",
    "nousers",
    "owner",
    "relatime",
    "silent",
    "strictatime",
    "user",
    "users",
    "_netdev",
    "_rnetdev",
    "nonempty",
];

/// Beginnings of such words.
const GENERIC_PREFIXES: &[&str] = &["x-", "X-", "comment=", "uhelper=", "helper=", "user="];

fn is_generic(option: &str) -> bool {
    GENERIC.contains(&option) || GENERIC_PREFIXES.iter().any(|prefix| option.starts_with(prefix))
}

/// The filesystem's own options among several comma-separated lists, as one list.
pub(super) fn own_options(lists: &[String]) -> String {
    let words = lists.iter().flat_map(|list| list.split(','));
    let own: Vec<&str> =
        words.map(str::trim).filter(|word| !word.is_empty() && !is_generic(word)).collect();
    own.join(",")
}

/// Whether a word is in a list, and the list without it.
pub(super) fn without(list: &str, word: &str) -> (bool, String) {
    let words = || list.split(',').map(str::trim).filter(|word| !word.is_empty());
    let others: Vec<&str> = words().filter(|other| *other != word).collect();
    (words().any(|other| other == word), others.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_mount_and_systemd_are_left_out() {
        let lists = [
            "rw,auto,user,_netdev,nofail,x-systemd.automount,x-gvfs-show".to_owned(),
            "ro,,cache=writeback,X-mount.mkdir,comment=home, noatime ".to_owned(),
        ];
        assert_eq!(own_options(&lists), "rw,ro,cache=writeback,noatime");
    }

    #[test]
    fn a_word_is_taken_out() {
        assert_eq!(without("ro,takeover,dev", "takeover"), (true, "ro,dev".to_owned()));
        assert_eq!(without("ro,takeovers", "takeover"), (false, "ro,takeovers".to_owned()));
    }

    #[test]
    fn a_typo_stays_to_be_refused() {
        assert_eq!(own_options(&["cahce=writeback".to_owned()]), "cahce=writeback");
    }
}
