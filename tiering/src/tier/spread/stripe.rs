//! One stripe: its parity, and its data from any `k` of its chunks. Also the cutting of a whole
//! object into shards, which lie in memory or, longer ones, in files without a name: on the disk, or, where
//! that is full, in memory, of one object at a time, since what makes room there is that objects are stored.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{CWD, FallocateFlags, MemfdFlags, Mode, OFlags, fallocate, memfd_create, openat};
use rustix::io::Errno;

use super::layout::{Layout, Record, Shape, Sum, sum, trailer};
use crate::error::{Error, Result};
use crate::segment::StripeCode;
use crate::tier::{Content, Tier};

/// Shards of objects up to this length stay in memory.
pub(super) const IN_MEMORY: u64 = 4 << 20;

/// The data chunks of a stripe from `k` verified chunks or more, each compared with its checksum.
/// `None` when there are fewer.
pub(super) fn data_of(
    code: &StripeCode,
    shape: &Shape,
    stripe: u64,
    have: &[Option<Record>],
) -> Option<Vec<Bytes>> {
    let data = usize::from(shape.data);
    let lost: Vec<usize> = (0..data).filter(|shard| have[*shard].is_none()).collect();
    let witness = have.iter().flatten().next()?;
    let rows: Vec<usize> = (0..usize::from(shape.parity))
        .filter(|row| have[data + row].is_some())
        .take(lost.len())
        .collect();
    if rows.len() < lost.len() {
        return None;
    }
    let mut difference = Vec::with_capacity(rows.len());
    if !lost.is_empty() {
        let mut sums = vec![vec![0; shape.chunk(data, stripe)]; usize::from(shape.parity)];
        for (shard, record) in have[..data].iter().enumerate() {
            if let Some(record) = record {
                code.add(shard, &record.chunk, &mut sums);
            }
        }
        for row in &rows {
            let mut sum = std::mem::take(&mut sums[*row]);
            let stored = have[data + row].as_ref()?;
            sum.iter_mut().zip(&stored.chunk).for_each(|(sum, stored)| *sum ^= stored);
            difference.push(sum);
        }
    }
    let mut made = code.solve(&lost, &rows, &difference).into_iter();
    let mut chunks = Vec::with_capacity(data);
    for (shard, record) in have[..data].iter().enumerate() {
        let chunk = match record {
            Some(record) => record.chunk.clone(),
            None => {
                let mut chunk = made.next()?;
                chunk.truncate(shape.chunk(shard, stripe));
                Bytes::from(chunk)
            }
        };
        if record.is_none() && !witness.attests(shard, &chunk) {
            return None;
        }
        chunks.push(chunk);
    }
    Some(chunks)
}

/// Cuts an object into shards, stripe by stripe.
pub(super) struct Cutter {
    layout: Layout,
    generation: Sum,
    code: StripeCode,
    /// By shard; `None` for those that nobody wants.
    shards: Vec<Option<Shard>>,
    hasher: blake3::Hasher,
    stripe: u64,
}

/// Where shards of long objects lie before they are stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aside<'a> {
    /// In files of this directory.
    Disk(&'a Path),
    /// In memory, which is not counted: of one object at a time.
    Memory,
}

/// A shard that is being made.
pub(super) enum Shard {
    Memory(Vec<u8>),
    File(File),
}

impl Cutter {
    /// For the shards that are `wanted`.
    pub(super) fn new(layout: &Layout, wanted: &[bool], aside: Aside<'_>) -> Result<Self> {
        let shape = layout.shape;
        let shard = |(index, wanted): (usize, &bool)| {
            if !wanted {
                return Ok(None);
            }
            let mut shard = match shape.len <= IN_MEMORY {
                true => Shard::Memory(Vec::with_capacity(shape.shard_len(index) as usize)),
                false => Shard::File(aside.file(shape.shard_len(index))?),
            };
            shard.append(&layout.header(index))?;
            Ok(Some(shard))
        };
        Ok(Self {
            layout: *layout,
            generation: layout.generation(),
            code: StripeCode::new(usize::from(shape.data), usize::from(shape.parity)),
            shards: wanted.iter().enumerate().map(shard).collect::<Result<_>>()?,
            hasher: blake3::Hasher::new(),
            stripe: 0,
        })
    }

    /// Bytes of the object that the next call of [`Cutter::stripe`] is to be given.
    fn next_len(&self) -> usize {
        let bytes = self.layout.shape.bytes_of(&(self.stripe..self.stripe + 1));
        (bytes.end - bytes.start) as usize
    }

    /// Adds the next `count` stripes, which `bytes` are one after the other.
    pub(super) fn stripes(&mut self, bytes: &[u8], count: u64) -> Result<()> {
        let mut rest = bytes;
        for _ in 0..count {
            let (stripe, behind) = rest.split_at(self.next_len());
            self.stripe(stripe)?;
            rest = behind;
        }
        Ok(())
    }

    /// Adds the next stripe.
    fn stripe(&mut self, bytes: &[u8]) -> Result<()> {
        let shape = &self.layout.shape;
        let (data, stripe) = (usize::from(shape.data), self.stripe);
        self.hasher.update(bytes);
        let mut parity = vec![vec![0; shape.chunk(data, stripe)]; usize::from(shape.parity)];
        let mut chunks: Vec<&[u8]> = Vec::with_capacity(shape.shards());
        let mut rest = bytes;
        for shard in 0..data {
            let (chunk, behind) = rest.split_at(shape.chunk(shard, stripe));
            self.code.add(shard, chunk, &mut parity);
            chunks.push(chunk);
            rest = behind;
        }
        chunks.extend(parity.iter().map(Vec::as_slice));
        let sums: Vec<u8> = chunks.iter().flat_map(|chunk| sum(&[chunk])).collect();
        for (index, (shard, chunk)) in self.shards.iter_mut().zip(&chunks).enumerate() {
            if let Some(shard) = shard {
                shard.append(chunk)?;
                shard.append(&trailer(&self.generation, index, stripe, &sums))?;
            }
        }
        self.stripe += 1;
        Ok(())
    }

    /// The shards, if the object was what the layout says.
    pub(super) fn finish(self) -> Result<Vec<Option<Shard>>> {
        if *self.hasher.finalize().as_bytes() != self.layout.digest {
            let reason = "its content changed while it was cut into shards".to_owned();
            return Err(Error::Damaged { what: "object", reason });
        }
        Ok(self.shards)
    }
}

impl Shard {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Memory(shard) => {
                shard.extend_from_slice(bytes);
                Ok(())
            }
            Self::File(file) => file.write_all(bytes).map_err(Error::io("write a shard aside")),
        }
    }

    /// Its bytes, for what is stored in place of another.
    pub(super) fn into_content(self) -> Result<Content> {
        Ok(match self {
            Self::Memory(shard) => Content::Bytes(Bytes::from(shard)),
            Self::File(file) => {
                let len = file.metadata().map_err(Error::io("look at a shard aside"))?.len();
                Content::File { path: PathBuf::from("a shard"), file: Arc::new(file), len }
            }
        })
    }

    /// Stores it.
    pub(super) async fn store(self, tier: &dyn Tier, key: &str) -> Result<()> {
        match self {
            Self::Memory(shard) => tier.put(key, Bytes::from(shard)).await,
            Self::File(file) => {
                let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()));
                tier.put_file(key, &path).await
            }
        }
    }
}

/// Whether what failed would have found room in memory.
pub(super) fn is_full(error: &Error) -> bool {
    use ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error, Error::Io { source, .. }
        if matches!(source.kind(), StorageFull | QuotaExceeded))
}

impl Aside<'_> {
    /// A file of no name with room for `len` bytes, so that nothing is left of it after a crash.
    fn file(self, len: u64) -> Result<File> {
        let dir = match self {
            Self::Disk(dir) => dir,
            Self::Memory => {
                let made = memfd_create("firn-shard", MemfdFlags::CLOEXEC).map(File::from);
                return made.map_err(|error| Error::io("make a shard in memory")(error.into()));
            }
        };
        let file = unlinked(dir)?;
        match fallocate(&file, FallocateFlags::KEEP_SIZE, 0, len) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT)) => {
                Err(Error::io(format!("make a shard in {}", dir.display()))(error.into()))
            }
            // Where room cannot be reserved, it shows when it is filled.
            _ => Ok(file),
        }
    }
}

/// A file in `dir` that has no name.
fn unlinked(dir: &Path) -> Result<File> {
    let failed = || Error::io(format!("make a file for shards in {}", dir.display()));
    #[cfg(test)]
    if dir == Path::new(tests::FULL) {
        return File::options().write(true).open(dir).map_err(failed());
    }
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let made: Result<OwnedFd, _> =
        openat(CWD, dir, flags | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR);
    match made {
        Ok(file) => Ok(File::from(file)),
        // Some filesystems have no such files: the name goes as soon as it is open.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            let name = crate::tier::Jitter::from_process().next_u64();
            let path = dir.join(format!("shard-{name:016x}"));
            let flags = flags | OFlags::CREATE | OFlags::EXCL;
            let file = openat(CWD, &path, flags, Mode::RUSR | Mode::WUSR)
                .map_err(|error| failed()(error.into()))?;
            std::fs::remove_file(&path).map_err(failed())?;
            Ok(File::from(file))
        }
        Err(error) => Err(failed()(error.into())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    /// Stands for a directory on a disk on which every write finds no space.
    pub(in super::super) const FULL: &str = "/dev/full";
}
