//! Looking at files of a mounted volume: which there are, in what state, and where their blocks
//! lie. Directories are walked page by page, extents slot by slot; nothing is held as a whole.

use std::ops::Range;

use anyhow::Context;
use firn_mount::FsError;
use firn_mount::core::Core;
use firn_mount::namespace::{Content, Namespace, Piece, SLOT_LEN};
use firn_mount::types::{Attr, FileKind, Ino};
use firn_mount::volume::Volume;
use firn_tiering::store::{BlockInfo, Residence};
use firn_tiering::{BlockId, BlockRef, BlockStore};

use crate::report::explain::{BlockFacts, FileFacts, Run, RunKind, StoredFacts};
use crate::report::files::FileLine;
use crate::report::names;

/// Directory entries taken at once.
const ENTRY_PAGE: usize = 512;

/// Slots taken at once.
const SLOT_PAGE: usize = 256;

/// What a file type is called.
pub(super) fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDevice => "char-device",
        FileKind::BlockDevice => "block-device",
    }
}

/// `name` below `dir`, for people.
pub(super) fn joined(dir: &str, name: &[u8]) -> String {
    let name = names::text(name);
    if dir.ends_with('/') { format!("{dir}{name}") } else { format!("{dir}/{name}") }
}

/// Passes the file `ino`, or what is in the directory `ino`, to `visit`; with `recursive`
/// everything below. What vanishes meanwhile is passed over.
pub(super) fn walk(
    volume: &Volume,
    ino: Ino,
    name: &str,
    recursive: bool,
    visit: &mut dyn FnMut(&str, &Attr) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let attr = volume.getattr(ino).with_context(|| name.to_owned())?;
    if attr.kind != FileKind::Directory {
        return visit(name, &attr);
    }
    let mut dirs = vec![(ino, name.to_owned())];
    while let Some((dir, path)) = dirs.pop() {
        let mut cookie = Some(0);
        while let Some(from) = cookie {
            let page = page(volume, dir, from).with_context(|| path.clone())?;
            cookie = page.next;
            for (child, name) in page.entries {
                let Ok(attr) = volume.getattr(child) else { continue };
                let path = joined(&path, &name);
                visit(&path, &attr)?;
                if recursive && attr.kind == FileKind::Directory {
                    dirs.push((child, path));
                }
            }
        }
    }
    Ok(())
}

/// Whether a file is not there any more: it was removed, or a rollback took it away.
pub(super) fn is_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref::<FsError>(), Some(FsError::Stale | FsError::NotFound))
    })
}

/// Some entries of a directory, without `.` and `..`.
#[derive(Default)]
pub(super) struct EntryPage {
    pub(super) entries: Vec<(Ino, Vec<u8>)>,
    /// Where to go on; `None` at the end.
    pub(super) next: Option<u64>,
}

/// Entries of a directory behind a cookie, 0 at first.
pub(super) fn page(volume: &Volume, dir: Ino, from: u64) -> firn_mount::FsResult<EntryPage> {
    let handle = volume.opendir(dir)?;
    let mut page = EntryPage::default();
    let listed = volume.readdir(dir, handle, from, false, &mut |entry| {
        if page.entries.len() == ENTRY_PAGE {
            return false;
        }
        page.next = Some(entry.cookie);
        if entry.name != b"." && entry.name != b".." {
            page.entries.push((entry.ino, entry.name.clone()));
        }
        true
    });
    volume.releasedir(dir, handle);
    listed?;
    // A page that was not filled was the last.
    if page.entries.len() < ENTRY_PAGE {
        page.next = None;
    }
    Ok(page)
}

/// The value of a `user.firn.*` attribute.
fn virtual_xattr(volume: &Volume, ino: Ino, name: &str) -> Option<String> {
    let value = volume.getxattr(ino, name.as_bytes()).ok()?;
    String::from_utf8(value).ok()
}

fn state_of(volume: &Volume, attr: &Attr) -> (Option<String>, Option<u8>) {
    if attr.kind != FileKind::File {
        return (None, None);
    }
    let state = virtual_xattr(volume, attr.ino, "user.firn.state");
    let pct = virtual_xattr(volume, attr.ino, "user.firn.resident_pct");
    (state, pct.and_then(|pct| pct.parse().ok()))
}

/// A line of a listing.
pub(super) fn line(volume: &Volume, path: &str, attr: &Attr) -> FileLine {
    let (state, resident_pct) = state_of(volume, attr);
    FileLine {
        path: path.to_owned(),
        kind: kind_name(attr.kind).to_owned(),
        size_bytes: attr.size,
        state,
        resident_pct,
    }
}

/// What is known of a file as a whole.
pub(super) fn facts(volume: &Volume, ino: Ino) -> anyhow::Result<FileFacts> {
    let attr = volume.getattr(ino).context("reading attributes")?;
    let (state, resident_pct) = state_of(volume, &attr);
    Ok(FileFacts {
        ino: ino.0,
        kind: kind_name(attr.kind).to_owned(),
        size_bytes: attr.size,
        state,
        resident_pct,
        blake3: virtual_xattr(volume, ino, "user.firn.blake3"),
    })
}

/// Passes the committed pieces of a file to `visit`, with their offset in the file.
pub(super) fn for_each_piece(
    names: &Namespace,
    ino: Ino,
    visit: &mut dyn FnMut(u64, &Piece) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for_each_piece_in(names, ino, 0..u64::MAX, visit)
}

/// The same for those in the slots of a range of bytes.
pub(super) fn for_each_piece_in(
    names: &Namespace,
    ino: Ino,
    range: Range<u64>,
    visit: &mut dyn FnMut(u64, &Piece) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let slot_len = u64::from(SLOT_LEN);
    let last = range.end.div_ceil(slot_len);
    let mut next = Some(range.start / slot_len);
    while let Some(from) = next {
        let page = names.slots(ino, from, last, SLOT_PAGE).context("reading extents")?;
        next = page.next;
        for (slot, record) in &page.slots {
            for piece in &record.pieces {
                visit(slot * slot_len + u64::from(piece.start), piece)?;
            }
        }
    }
    Ok(())
}

/// A piece as `explain` shows it.
pub(super) fn run(store: &BlockStore, offset_bytes: u64, piece: &Piece) -> Run {
    let (kind, block) = match &piece.content {
        Content::Block { block, offset } => {
            (RunKind::Block, Some(block_facts(store, block, *offset)))
        }
        Content::Inline(_) => (RunKind::Inline, None),
        Content::Unwritten => (RunKind::Unwritten, None),
    };
    Run { offset_bytes, len_bytes: u64::from(piece.len), kind, block }
}

fn block_facts(store: &BlockStore, block: &BlockRef, offset: u32) -> BlockFacts {
    let described = store.describe(block.id);
    let (stored, residence, trouble) = match described {
        Ok(info) if info.digest != block.digest => {
            (None, "unknown", Some("the catalog holds another digest for this block".to_owned()))
        }
        Ok(info) => (Some(stored_facts(&info)), residence_name(info.residence), None),
        Err(error) => (None, "unknown", Some(error.to_string())),
    };
    BlockFacts {
        id: block.id.to_string(),
        digest: block.digest.to_string(),
        offset_bytes: offset,
        plain_bytes: u64::from(block.len),
        stored,
        residence: residence.to_owned(),
        trouble,
    }
}

fn stored_facts(info: &BlockInfo) -> StoredFacts {
    StoredFacts {
        stored_bytes: info.stored_bytes,
        codec: info.codec.to_string(),
        filter: info.filter.to_string(),
        level: info.level,
        why: info.why.clone(),
        segment: info.segment.to_string(),
        segment_offset_bytes: info.offset,
    }
}

/// What a residence is called.
pub(super) fn residence_name(residence: Residence) -> &'static str {
    match residence {
        Residence::Open => "open",
        Residence::Hot => "hot",
        Residence::Dual => "dual",
        Residence::Cold => "cold",
        Residence::Unknown => "unknown",
    }
}

/// The blocks of a file, each once per neighbouring run.
pub(super) fn blocks(names: &Namespace, ino: Ino, found: &mut Vec<BlockId>) -> anyhow::Result<()> {
    for_each_piece(names, ino, &mut |_, piece| {
        if let Some(block) = piece.block()
            && found.last() != Some(&block.id)
        {
            found.push(block.id);
        }
        Ok(())
    })
}
