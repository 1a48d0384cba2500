//! Cuts a journal behind its last whole batch, where fjall itself refuses to open it.
//!
//! After power loss, pages of a batch that was never synced may be missing in its middle. fjall
//! cuts most such batches off, but takes one whose frame is whole and whose checksum differs for
//! an error of the whole database. What is cut was not durable, unless the medium lost it; so it
//! is kept beside the journal, and the cut is logged.

use std::hash::Hasher;
use std::io;
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

/// Longest journal that is read: several times what fjall lets one grow to.
const JOURNAL_MAX: u64 = 1 << 30;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";

/// The newest journal in a database directory.
pub(super) fn newest(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        if let Some(number) = number
            && newest.as_ref().is_none_or(|(highest, _)| *highest < number)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Cuts the journal behind its last whole batch and returns how many bytes went, without the
/// zeros that follow. They are kept in a file beside it.
pub(super) fn cut_damaged_end(journal: &Path) -> io::Result<usize> {
    if journal.metadata()?.len() > JOURNAL_MAX {
        return Err(io::Error::other("the journal is too long"));
    }
    let bytes = std::fs::read(journal)?;
    let keep = whole_batches(&bytes);
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    if end <= keep {
        return Ok(0);
    }
    std::fs::write(journal.with_extension("jnl.damaged"), &bytes[keep..end])?;
    let file = std::fs::OpenOptions::new().write(true).open(journal)?;
    file.set_len(keep as u64)?;
    file.sync_all()?;
    Ok(end - keep)
}

/// Where the last of the whole batches at the beginning of a journal ends.
fn whole_batches(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(len) = batch_len(&bytes[at..]) {
        at += len;
    }
    at
}

/// Length of the batch at the beginning of `bytes`; `None` when it is torn or damaged.
fn batch_len(bytes: &[u8]) -> Option<usize> {
    if *bytes.first()? != START {
        return None;
    }
    let items = u32::from_le_bytes(array(bytes, 1)?);
    let mut at = 1 + 4 + 8;
    let mut hash = XxHash3_64::new();
    for _ in 0..items {
        let len = item_len(bytes.get(at..)?)?;
        hash.write(bytes.get(at..at.checked_add(len)?)?);
        at += len;
    }
    let end = bytes.get(at..)?;
    let checksum = u64::from_le_bytes(array(end, 1)?);
    let whole = *end.first()? == END && checksum == hash.finish() && end.get(9..13)? == TRAILER;
    whole.then_some(at + 13)
}

fn item_len(bytes: &[u8]) -> Option<usize> {
    match *bytes.first()? {
        // Value type, compression and keyspace come before the lengths of key and value; the
        // value's length before compression stands between them.
        ITEM => {
            let key = u16::from_le_bytes(array(bytes, 11)?);
            let value = u32::from_le_bytes(array(bytes, 17)?);
            21_usize.checked_add(usize::from(key))?.checked_add(value as usize)
        }
        CLEAR => Some(1 + 8),
        _ => None,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
