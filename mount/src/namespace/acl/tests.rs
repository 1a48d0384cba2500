#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn acl(entries: &[(u16, u16)]) -> Acl {
    Acl(entries.iter().map(|&(tag, perm)| AclEntry { tag, perm, id: 7 }).collect())
}

#[test]
fn only_the_order_of_posix_is_valid() {
    for (entries, valid) in [
        (vec![(USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 5)], true),
        (vec![(USER_OBJ, 7), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 5)], true),
        (
            vec![
                (USER_OBJ, 7),
                (USER, 1),
                (USER, 2),
                (GROUP_OBJ, 5),
                (GROUP, 3),
                (MASK, 7),
                (OTHER, 5),
            ],
            true,
        ),
        (vec![(USER_OBJ, 7), (USER, 1), (GROUP_OBJ, 5), (OTHER, 5)], false),
        (vec![(USER_OBJ, 7), (GROUP_OBJ, 5), (GROUP, 3), (OTHER, 5)], false),
        (vec![(GROUP_OBJ, 5), (USER_OBJ, 7), (OTHER, 5)], false),
        (vec![(USER_OBJ, 7), (OTHER, 5)], false),
        (vec![(USER_OBJ, 7), (GROUP_OBJ, 5)], false),
        (vec![(USER_OBJ, 8), (GROUP_OBJ, 5), (OTHER, 5)], false),
        (vec![(USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 5), (OTHER, 5)], false),
        (vec![(USER_OBJ, 7), (USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 5)], false),
        (vec![(USER_OBJ, 7), (GROUP_OBJ, 5), (MASK, 7), (MASK, 7), (OTHER, 5)], false),
        (vec![(3, 7), (GROUP_OBJ, 5), (OTHER, 5)], false),
    ] {
        let bytes = acl(&entries).encode();
        assert_eq!(Acl::parse(&bytes).is_ok(), valid, "{entries:?}");
    }
}

#[test]
fn named_entries_need_an_id() {
    let mut named = acl(&[(USER_OBJ, 7), (USER, 1), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 5)]);
    assert!(named.is_valid());
    named.0[1].id = u32::MAX;
    assert!(!named.is_valid());
}

#[test]
fn the_mask_stands_for_the_group_where_there_is_one() {
    let mut plain = acl(&[(USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 1)]);
    assert_eq!((plain.permission_bits(), plain.is_extended()), (0o751, false));
    let mut masked = acl(&[(USER_OBJ, 7), (GROUP_OBJ, 5), (MASK, 2), (OTHER, 1)]);
    assert_eq!((masked.permission_bits(), masked.is_extended()), (0o721, true));
    masked.chmod(0o640);
    assert_eq!(masked, acl(&[(USER_OBJ, 6), (GROUP_OBJ, 5), (MASK, 4), (OTHER, 0)]));
}

#[test]
fn inheriting_keeps_what_both_allow() {
    let mut acl_of_dir = acl(&[(USER_OBJ, 6), (GROUP_OBJ, 7), (OTHER, 4)]);
    assert_eq!(acl_of_dir.inherit(0o4751), 0o4650);
    assert_eq!(acl_of_dir, acl(&[(USER_OBJ, 6), (GROUP_OBJ, 5), (OTHER, 0)]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_an_acl_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(Some(acl)) = Acl::parse(&bytes) {
            prop_assert_eq!(acl.encode(), bytes);
        }
    }
}
