//! A name of a file that has several; its key says where the entry lies.

use super::dentry::{NAME_MAX, is_name};
use super::{Reader, RecordError};

const WHAT: &str = "link";
const VERSION: u8 = 1;

/// Appends the record to a value that starts with its version.
pub fn put_link_name(out: &mut Vec<u8>, name: &[u8]) {
    out.push(VERSION);
    out.extend_from_slice(name);
}

/// Decodes the record behind the version: the name.
pub fn link_name(record: &[u8]) -> Result<&[u8], RecordError> {
    let mut reader = Reader::new(WHAT, record);
    reader.version(VERSION)?;
    let name = reader.rest();
    match name.len() <= NAME_MAX && is_name(name) {
        true => Ok(name),
        false => Err(reader.error("impossible name")),
    }
}
