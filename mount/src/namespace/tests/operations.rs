//! Rules of single operations that the reference model does not know.

use super::*;
use crate::namespace::create::MAX_LINKS;
use crate::types::{RenameMode, SetAttr, SetTime, XattrMode};

fn perm_of(world: &World, ino: Ino) -> u16 {
    world.attr(ino).perm
}

fn chmod(world: &World, caller: &Caller, ino: Ino, perm: u16) {
    let changes = SetAttr { perm: Some(perm), ..SetAttr::default() };
    world.ns.setattr(caller, ino, &changes).unwrap();
}

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut out = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&perm.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    out
}

const NO_ID: u32 = u32::MAX;
const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

fn extended(mask: u16) -> Vec<u8> {
    acl(&[(1, 7, NO_ID), (2, 6, 1234), (4, 5, NO_ID), (0x10, mask, NO_ID), (0x20, 4, NO_ID)])
}

#[test]
fn names_have_limits() {
    let world = World::new();
    let create = |name: &[u8]| world.ns.mknod(&ROOT_CALLER, Ino::ROOT, name, 0o100_644, 0, 0);
    assert_eq!(fails(create(&[b'x'; 256])), "ENAMETOOLONG");
    assert_eq!(fails(create(b"")), "ENOENT");
    assert_eq!(fails(create(b"a/b")), "EINVAL");
    assert_eq!(fails(create(b"a\0b")), "EINVAL");
    assert_eq!(fails(create(b"..")), "EINVAL");
    let longest: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').chain([1]).collect();
    assert_eq!(longest.len(), 255);
    let inode = create(&longest).unwrap();
    assert_eq!(world.ns.lookup(Ino::ROOT, &longest).unwrap().ino, inode.ino);
    assert_eq!(fails(world.ns.lookup(Ino::ROOT, &[b'x'; 256])), "ENAMETOOLONG");
}

#[test]
fn lookup_in_a_file_is_not_a_directory() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    assert_eq!(fails(world.ns.lookup(file, b"x")), "ENOTDIR");
    assert_eq!(fails(world.ns.mkdir(&ROOT_CALLER, file, b"x", 0o755, 0)), "ENOTDIR");
    assert_eq!(fails(world.ns.readdir(file, 0, false, &mut |_| true)), "ENOTDIR");
    assert_eq!(fails(world.ns.getattr(Ino(12345))), "ESTALE");
}

#[test]
fn nothing_is_made_in_a_removed_directory() {
    let world = World::new();
    let dir = world.dir(Ino::ROOT, "d");
    let file = world.file(Ino::ROOT, "f");
    world.ns.rmdir(Ino::ROOT, b"d").unwrap();
    assert_eq!(fails(world.ns.mkdir(&ROOT_CALLER, dir, b"x", 0o755, 0)), "ENOENT");
    assert_eq!(fails(world.ns.link(file, dir, b"x")), "ENOENT");
    let moved = world.ns.rename(Ino::ROOT, b"f", dir, b"x", RenameMode::Replace);
    assert_eq!(fails(moved), "ENOENT");
    assert_eq!(world.attr(dir).nlink, 0);
}

#[test]
fn device_nodes_keep_their_number_and_others_have_none() {
    let world = World::new();
    let make = |name: &[u8], mode| {
        world.ns.mknod(&ROOT_CALLER, Ino::ROOT, name, mode, 0, 0x0103).unwrap().attr()
    };
    let node = make(b"c", 0o020_600);
    assert_eq!((node.kind, node.rdev), (FileKind::CharDevice, 0x0103));
    assert_eq!(make(b"b", 0o060_600).rdev, 0x0103);
    let fifo = make(b"p", 0o010_600);
    assert_eq!((fifo.kind, fifo.rdev), (FileKind::Fifo, 0));
    assert_eq!(make(b"s", 0o140_600).kind, FileKind::Socket);
    assert_eq!(make(b"f", 0o600).kind, FileKind::File);
    let dir = world.ns.mknod(&ROOT_CALLER, Ino::ROOT, b"d", 0o040_755, 0, 0);
    assert_eq!(fails(dir), "EPERM");
}

#[test]
fn symbolic_links_have_a_length_and_a_limit() {
    let world = World::new();
    let link = world.ns.symlink(&USER, Ino::ROOT, b"l", b"some/where").unwrap();
    let attr = link.attr();
    assert_eq!((attr.size, attr.perm, attr.uid, attr.gid), (10, 0o777, 1000, 100));
    assert_eq!(world.ns.readlink(link.ino).unwrap(), b"some/where");
    let long = world.ns.symlink(&USER, Ino::ROOT, b"m", &[b'x'; 4096]);
    assert_eq!(fails(long), "ENAMETOOLONG");
    assert_eq!(fails(world.ns.readlink(Ino::ROOT)), "EINVAL");
}

#[test]
fn links_have_a_limit() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    let mut txn = world.ns.begin();
    let mut inode = (*world.ns.inode(file).unwrap()).clone();
    inode.nlink = MAX_LINKS - 1;
    txn.put_inode(inode).unwrap();
    txn.commit(Durability::Buffered).unwrap();
    world.ns.link(file, Ino::ROOT, b"last").unwrap();
    assert_eq!(fails(world.ns.link(file, Ino::ROOT, b"one too many")), "EMLINK");
    assert_eq!(world.attr(file).nlink, MAX_LINKS);
}

#[test]
fn times_before_1970_and_far_ahead_are_exact() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    for (secs, nanos) in [(-1, 1), (-2_208_988_800, 999_999_999), (1 << 40, 7), (0, 0), (-5, 0)] {
        let time = SystemTime::from(Timestamp { secs, nanos });
        let (atime, mtime) = (Some(SetTime::At(time)), Some(SetTime::At(time)));
        let ctime = Some(time);
        let changes = SetAttr { atime, mtime, ctime, ..SetAttr::default() };
        world.ns.setattr(&ROOT_CALLER, file, &changes).unwrap();
        let attr = World::open(Arc::new(world.store.reopened()), Arc::clone(&world.clock));
        let attr = attr.attr(file);
        assert_eq!((attr.atime, attr.mtime, attr.ctime), (time, time, time));
    }
}

#[test]
fn chown_clears_setuid_and_setgid_of_files_only() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    let chown = SetAttr { uid: Some(7), gid: Some(8), ..SetAttr::default() };
    chmod(&world, &ROOT_CALLER, file, 0o6755);
    world.ns.setattr(&ROOT_CALLER, file, &chown).unwrap();
    let attr = world.attr(file);
    assert_eq!((attr.perm, attr.uid, attr.gid), (0o755, 7, 8));
    // Without group execution setgid marks mandatory locking, which root keeps.
    chmod(&world, &ROOT_CALLER, file, 0o6745);
    world.ns.setattr(&ROOT_CALLER, file, &chown).unwrap();
    assert_eq!(perm_of(&world, file), 0o2745);
    let dir = world.dir(Ino::ROOT, "d");
    chmod(&world, &ROOT_CALLER, dir, 0o6755);
    world.ns.setattr(&ROOT_CALLER, dir, &chown).unwrap();
    assert_eq!(perm_of(&world, dir), 0o6755);
}

#[test]
fn chmod_by_a_stranger_to_the_group_clears_setgid() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    let chown = SetAttr { uid: Some(USER.uid), gid: Some(5), ..SetAttr::default() };
    world.ns.setattr(&ROOT_CALLER, file, &chown).unwrap();
    chmod(&world, &USER, file, 0o2755);
    assert_eq!(perm_of(&world, file), 0o755);
    let member = Caller { gid: 5, ..USER };
    chmod(&world, &member, file, 0o2755);
    assert_eq!(perm_of(&world, file), 0o2755);
}

#[test]
fn supplementary_groups_of_the_calling_thread_count() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    // This process has some supplementary groups, or none; both are told apart.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("Groups:")).unwrap();
    let own: Vec<u32> = line[7..].split_whitespace().map(|group| group.parse().unwrap()).collect();
    let other = (50_000..).find(|group| !own.contains(group)).unwrap();
    for (gid, expected) in own.iter().map(|&gid| (gid, 0o2755)).chain([(other, 0o755)]) {
        let chown = SetAttr { gid: Some(gid), ..SetAttr::default() };
        world.ns.setattr(&ROOT_CALLER, file, &chown).unwrap();
        let caller = Caller { uid: 1000, gid: 60_000, pid: std::process::id() };
        chmod(&world, &caller, file, 0o2755);
        assert_eq!(perm_of(&world, file), expected, "group {gid}");
    }
}

#[test]
fn setgid_directories_pass_their_group_on() {
    let world = World::new();
    let dir = world.dir(Ino::ROOT, "d");
    let chown = SetAttr { gid: Some(42), ..SetAttr::default() };
    world.ns.setattr(&ROOT_CALLER, dir, &chown).unwrap();
    chmod(&world, &ROOT_CALLER, dir, 0o2777);
    let below = world.ns.mkdir(&USER, dir, b"below", 0o755, 0o022).unwrap();
    assert_eq!((below.gid, below.perm), (42, 0o2755));
    let file = world.ns.mknod(&USER, dir, b"f", 0o102_755, 0o022, 0).unwrap();
    assert_eq!((file.gid, file.perm), (42, 0o755), "no member may make a setgid program");
    let member = Caller { gid: 42, ..USER };
    let file = world.ns.mknod(&member, dir, b"g", 0o102_755, 0o022, 0).unwrap();
    assert_eq!((file.gid, file.perm), (42, 0o2755));
}

#[test]
fn umask_applies_unless_there_is_a_default_acl() {
    let world = World::new();
    let file = world.ns.mknod(&USER, Ino::ROOT, b"f", 0o100_666, 0o027, 0).unwrap();
    assert_eq!(file.perm, 0o640);
    let dir = world.dir(Ino::ROOT, "d");
    world.ns.setxattr(&ROOT_CALLER, dir, DEFAULT, &extended(7), XattrMode::Set).unwrap();
    let file = world.ns.mknod(&USER, dir, b"f", 0o100_666, 0o077, 0).unwrap();
    // Owner rwx, mask rwx and others r meet what was asked for: rw-rw-r--.
    assert_eq!(file.perm, 0o664);
    let access = world.ns.getxattr(file.ino, ACCESS).unwrap();
    let expected =
        acl(&[(1, 6, NO_ID), (2, 6, 1234), (4, 5, NO_ID), (0x10, 6, NO_ID), (0x20, 4, NO_ID)]);
    assert_eq!(access, expected);
    assert_eq!(fails(world.ns.getxattr(file.ino, DEFAULT)), "ENODATA");
    let below = world.ns.mkdir(&USER, dir, b"below", 0o755, 0o077).unwrap();
    assert_eq!(world.ns.getxattr(below.ino, DEFAULT).unwrap(), extended(7));
    let link = world.ns.symlink(&USER, dir, b"l", b"x").unwrap();
    assert_eq!(world.ns.listxattr(link.ino).unwrap(), Vec::<Vec<u8>>::new());
    world.assert_sound();
}

#[test]
fn a_default_acl_of_three_entries_sets_only_the_mode() {
    let world = World::new();
    let dir = world.dir(Ino::ROOT, "d");
    let minimal = acl(&[(1, 7, NO_ID), (4, 5, NO_ID), (0x20, 0, NO_ID)]);
    world.ns.setxattr(&ROOT_CALLER, dir, DEFAULT, &minimal, XattrMode::Set).unwrap();
    let file = world.ns.mknod(&USER, dir, b"f", 0o100_666, 0o077, 0).unwrap();
    assert_eq!(file.perm, 0o640);
    assert_eq!(fails(world.ns.getxattr(file.ino, ACCESS)), "ENODATA");
}

#[test]
fn the_mode_follows_the_access_acl_and_the_acl_the_mode() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    world.ns.setxattr(&ROOT_CALLER, file, ACCESS, &extended(6), XattrMode::Set).unwrap();
    assert_eq!(perm_of(&world, file), 0o764, "the group bits show the mask");
    chmod(&world, &ROOT_CALLER, file, 0o4641);
    let changed = world.ns.getxattr(file, ACCESS).unwrap();
    let expected =
        acl(&[(1, 6, NO_ID), (2, 6, 1234), (4, 5, NO_ID), (0x10, 4, NO_ID), (0x20, 1, NO_ID)]);
    assert_eq!(changed, expected);
    assert_eq!(perm_of(&world, file), 0o4641);
    let minimal = acl(&[(1, 7, NO_ID), (4, 0, NO_ID), (0x20, 0, NO_ID)]);
    world.ns.setxattr(&ROOT_CALLER, file, ACCESS, &minimal, XattrMode::Set).unwrap();
    assert_eq!(perm_of(&world, file), 0o4700);
    assert_eq!(world.ns.listxattr(file).unwrap(), Vec::<Vec<u8>>::new());
    world.ns.setxattr(&ROOT_CALLER, file, ACCESS, &extended(7), XattrMode::Set).unwrap();
    world.ns.removexattr(&ROOT_CALLER, file, ACCESS).unwrap();
    world.ns.removexattr(&ROOT_CALLER, file, ACCESS).unwrap();
    assert_eq!(fails(world.ns.getxattr(file, ACCESS)), "ENODATA");
    world.assert_sound();
}

#[test]
fn setting_an_acl_clears_setgid_for_strangers_to_the_group() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    for (caller, expected) in [(ROOT_CALLER, 0o2774), (USER, 0o774)] {
        chmod(&world, &ROOT_CALLER, file, 0o2755);
        world.ns.setxattr(&caller, file, ACCESS, &extended(7), XattrMode::Set).unwrap();
        assert_eq!(perm_of(&world, file), expected);
    }
}

#[test]
fn acls_are_for_what_can_have_them() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    let link = world.ns.symlink(&ROOT_CALLER, Ino::ROOT, b"l", b"f").unwrap().ino;
    let set =
        |ino, name, value: &[u8]| world.ns.setxattr(&ROOT_CALLER, ino, name, value, XattrMode::Set);
    assert_eq!(fails(set(file, DEFAULT, &extended(7))), "EACCES");
    assert_eq!(fails(set(link, ACCESS, &extended(7))), "EOPNOTSUPP");
    assert_eq!(fails(set(file, ACCESS, b"\x01\0\0\0")), "EINVAL");
    assert_eq!(fails(set(file, ACCESS, &extended(7)[..10])), "EINVAL");
    let empty = acl(&[]);
    set(file, ACCESS, &extended(7)).unwrap();
    set(file, ACCESS, &empty).unwrap();
    assert_eq!(fails(world.ns.getxattr(file, ACCESS)), "ENODATA");
}

#[test]
fn attributes_have_the_limits_of_linux() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    let fifo = world.ns.mknod(&ROOT_CALLER, Ino::ROOT, b"p", 0o010_600, 0, 0).unwrap().ino;
    let set = |ino, name: &[u8], value: &[u8]| {
        world.ns.setxattr(&ROOT_CALLER, ino, name, value, XattrMode::Set)
    };
    let long = [b"user.".as_slice(), &[b'x'; 250]].concat();
    set(file, &long, &[1; 65_536]).unwrap();
    assert_eq!(world.ns.getxattr(file, &long).unwrap(), [1; 65_536]);
    set(file, &long, b"").unwrap();
    assert_eq!(world.ns.getxattr(file, &long).unwrap(), b"");
    assert_eq!(fails(set(file, &[long.as_slice(), b"y"].concat(), b"")), "ERANGE");
    assert_eq!(fails(set(file, b"user.big", &[0; 65_537])), "E2BIG");
    assert_eq!(fails(set(file, b"user.", b"")), "EINVAL");
    assert_eq!(fails(set(file, b"other.x", b"")), "EOPNOTSUPP");
    assert_eq!(fails(set(fifo, b"user.x", b"")), "EPERM");
    set(fifo, b"trusted.x", b"1").unwrap();
    set(fifo, b"security.x", b"1").unwrap();
    assert_eq!(fails(world.ns.getxattr(fifo, b"trusted.y")), "ENODATA");
    assert_eq!(fails(world.ns.getxattr(file, b"other.x")), "EOPNOTSUPP");
    assert_eq!(world.ns.listxattr(fifo).unwrap(), [b"security.x".to_vec(), b"trusted.x".to_vec()]);
    world.assert_sound();
}

#[test]
fn the_list_of_attribute_names_has_a_limit() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    let name = |number: usize| format!("user.{number:0>250}").into_bytes();
    for number in 0..256 {
        world.ns.setxattr(&ROOT_CALLER, file, &name(number), b"v", XattrMode::Set).unwrap();
    }
    let refused = world.ns.setxattr(&ROOT_CALLER, file, b"user.y", b"", XattrMode::Set);
    assert_eq!(fails(refused), "ENOSPC");
    assert_eq!(world.ns.listxattr(file).unwrap().len(), 256);
    world.ns.removexattr(&ROOT_CALLER, file, &name(5)).unwrap();
    world.ns.setxattr(&ROOT_CALLER, file, b"user.y", b"", XattrMode::Create).unwrap();
    world.assert_sound();
    world.ns.unlink(Ino::ROOT, b"f").unwrap();
    world.ns.purged(&[file]).unwrap();
    world.assert_sound();
}

#[test]
fn capabilities_go_with_a_change_of_owner() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    let set = |name: &[u8]| {
        world.ns.setxattr(&ROOT_CALLER, file, name, b"v", XattrMode::Set).unwrap();
    };
    set(b"security.capability");
    set(b"user.kept");
    let chown = SetAttr { uid: Some(7), ..SetAttr::default() };
    world.ns.setattr(&ROOT_CALLER, file, &chown).unwrap();
    assert_eq!(world.ns.listxattr(file).unwrap(), [b"user.kept".to_vec()]);
    world.assert_sound();
}

#[test]
fn removed_entries_say_what_became_of_them() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    world.ns.link(file, Ino::ROOT, b"g").unwrap();
    let removed = world.ns.unlink(Ino::ROOT, b"f").unwrap();
    assert!(!removed.is_orphan());
    let other = world.file(Ino::ROOT, "h");
    let renamed = world.ns.rename(Ino::ROOT, b"h", Ino::ROOT, b"g", RenameMode::Replace).unwrap();
    assert_eq!(renamed.moved.ino, other);
    let replaced = renamed.replaced.unwrap();
    assert_eq!((replaced.inode.ino, replaced.is_orphan()), (file, true));
    assert_eq!(world.ns.orphans(None, 10).unwrap(), [file]);
    assert_eq!(fails(world.ns.link(file, Ino::ROOT, b"x")), "ENOENT");
}

#[test]
fn an_exchange_swaps_directories_and_files() {
    let world = World::new();
    let (left, right) = (world.dir(Ino::ROOT, "left"), world.dir(Ino::ROOT, "right"));
    let (dir, file) = (world.dir(left, "x"), world.file(right, "y"));
    let done = world.ns.rename(left, b"x", right, b"y", RenameMode::Exchange).unwrap();
    assert_eq!((done.moved.ino, done.exchanged.unwrap().ino), (dir, file));
    assert_eq!(world.ns.lookup(left, b"x").unwrap().ino, file);
    assert_eq!(world.ns.lookup(dir, b"..").unwrap().ino, right);
    assert_eq!((world.attr(left).nlink, world.attr(right).nlink), (2, 3));
    assert_eq!(world.ns.path(dir), b"/right/y");
    let own = world.ns.rename(Ino::ROOT, b"right", right, b"y", RenameMode::Exchange);
    assert_eq!(fails(own), "EINVAL");
    let own = world.ns.rename(right, b"y", Ino::ROOT, b"right", RenameMode::Exchange);
    assert_eq!(fails(own), "EINVAL");
    world.assert_sound();
}

#[test]
fn an_inode_may_have_a_great_many_names() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    let mut inode = Inode::clone(&world.ns.inode(file).unwrap());
    inode.nlink = i32::MAX as u32;
    let mut txn = world.ns.begin();
    txn.put_inode(inode).unwrap();
    txn.commit(Durability::Buffered).unwrap();
    assert_eq!(fails(world.ns.link(file, Ino::ROOT, b"g")), "EMLINK");
}

#[test]
fn notes_are_kept() {
    let world = World::new();
    assert_eq!(world.ns.note("backup").unwrap(), None);
    world.ns.set_note("backup", b"state", Durability::Durable).unwrap();
    let world = world.power_loss();
    assert_eq!(world.ns.note("backup").unwrap().unwrap(), b"state"[..]);
}

#[test]
fn a_store_holds_one_namespace() {
    let world = World::new();
    let root = NewRoot { uid: 0, gid: 0, perm: 0o755 };
    let again = Namespace::create(&*world.store, &*world.clock, root, SEED);
    assert_eq!(fails(again), "EEXIST");
    let empty = Arc::new(MemoryStore::new());
    let missing = Namespace::open(empty, world.clock, NamespaceOptions::default());
    assert_eq!(fails(missing), "EIO");
}

#[test]
fn what_changes_nothing_is_not_stored() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    let stored = || world.ns.inode(file).unwrap();
    let before = stored();
    let ctime = |ctime| SetAttr { ctime: Some(ctime), ..SetAttr::default() };
    world.ns.setattr(&ROOT_CALLER, file, &ctime(world.attr(file).ctime)).unwrap();
    assert!(Arc::ptr_eq(&before, &stored()), "the same time once more");
    let later = world.attr(file).ctime + std::time::Duration::from_millis(4);
    world.ns.setattr(&ROOT_CALLER, file, &ctime(later)).unwrap();
    assert_eq!(world.attr(file).ctime, later);
    world.ns.unlink(Ino::ROOT, b"f").unwrap();
    let orphan = stored();
    world.ns.setattr(&ROOT_CALLER, file, &ctime(later + later.elapsed().unwrap())).unwrap();
    assert!(Arc::ptr_eq(&orphan, &stored()), "the change time of what has no name");
    chmod(&world, &ROOT_CALLER, file, 0o600);
    assert_eq!(perm_of(&world, file), 0o600, "all else of an open file without a name");
}
