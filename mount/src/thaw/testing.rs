//! Copies for tests.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use bytes::Bytes;

use super::{Plain, Source, ThawCounts, write};
use crate::error::FsResult;

impl Source for &[u8] {
    fn read(&mut self, offset: u64, len: u32) -> FsResult<Option<Bytes>> {
        let end = (offset as usize + len as usize).min(self.len());
        Ok(Some(Bytes::copy_from_slice(&self[offset as usize..end])))
    }
}

/// A copy of `bytes` in the directory for temporary files.
pub(crate) fn copy(bytes: &[u8], counts: &Arc<ThawCounts>) -> Plain {
    let len = bytes.len() as u64;
    write(&std::env::temp_dir(), len, counts.charge(len), &mut { bytes }).unwrap().unwrap()
}
