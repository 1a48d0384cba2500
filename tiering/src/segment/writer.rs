//! The file of a segment while it is written: append, sync, seal, and recovery after a crash.
//!
//! *Consistency*: a frame may be read as soon as `append` returned. It survives a crash after the
//! next sync. A failed append leaves the segment as it was; the next one overwrites what it wrote.
//! *Crash*: until the rename in `seal` the file is `<id>.open`, and whatever footer it has is
//! ignored and overwritten: [`SegmentWriter::recover`] keeps the frames and nothing else. After
//! the rename it is complete and durable, since the rename follows an `fdatasync` of all of it.
//! *Sidecar*: where parity lies apart, it is written beside the segment and durable before the
//! rename, so that a sealed segment has it; a crash in between leaves it beside an open segment,
//! which is sealed again and writes it anew. Where the parity is to lie stands in the header from
//! the start; if that is lost, it lies inside, where it protects best and needs nothing else.
//! *Unread*: what was written here and cannot be read back is not sealed as anything else; what could
//! not be read at recovery counts as zeros.
//! *Retry*: `seal` may be called again after an error that is not a failed sync.
//! *Leaks*: frames that were appended and never referred to stay until the segment dies.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::buffers::Buffer;
use crate::error::{Error, Result};

use super::bytes_at::ReadAt;
use super::entry::IndexEntry;
use super::frame::{FRAME_ALIGN, FRAME_HEADER_TYPICAL, Frame};
use super::header::{DATA_START, HEAD_TRAILER, HEADER_LEN, SegmentHeader, TRAILER_LEN, Trailer};
use super::index::{SegmentIndex, encode_index};
use super::parity::{Geometry, Protection, protect};
use super::place::{ParityPlace, sidecar_header, sidecar_parts};
use super::scan::{ScannedFrame, scan_frames};
use super::unprotected::is_unprotected;
use super::{FileKind, SEGMENT_TARGET, SegmentName, align_up, damaged};

/// Bytes of an index entry before compression, at most.
const ENTRY_BOUND: u64 = 80;
/// Index and shard tables take at most this share of a segment's frames, in thousandths, ...
const FOOTER_PER_MILLE: u64 = 3;
/// ... where frames take at least this much; below, copies matter more than bytes.
const FOOTER_LEAST_FRAMES: u64 = 32 << 20;
/// Two shard tables of a full segment.
const TABLES_BOUND: u64 = 2 * 16 * 1029;

/// How often what was written is read back before it counts as unreadable.
const SEAL_READS: usize = 3;

/// A segment that takes frames.
#[derive(Debug)]
pub struct SegmentWriter {
    name: SegmentName,
    place: ParityPlace,
    dir: PathBuf,
    pub(super) file: Arc<File>,
    end: u64,
    entries: Vec<IndexEntry>,
    /// What could not be read when it was recovered.
    unread: Vec<Range<u64>>,
    sealed: bool,
}

/// A segment that was sealed.
#[derive(Clone, Debug)]
pub struct SealedInfo {
    /// Its file.
    pub path: PathBuf,
    /// Length of that file.
    pub file_len: u64,
    /// Its index.
    pub index: SegmentIndex,
}

/// A segment that a crash left open.
#[derive(Debug)]
pub struct Recovered {
    /// Takes frames again; usually it is sealed at once.
    pub writer: SegmentWriter,
    /// Frames that were kept although some of their cells cannot be read.
    pub damaged: Vec<ScannedFrame>,
    /// Ranges before the last kept frame that hold none.
    pub gaps: Vec<Range<u64>>,
    /// Bytes cut off behind the last kept frame: an append that the crash interrupted.
    pub torn_bytes: u64,
    /// Ranges that could not be read. They are kept, and count as zeros.
    pub unreadable: Vec<Range<u64>>,
}

impl SegmentWriter {
    /// Makes the file of a new segment in `dir`; the file's name is durable when this returns.
    /// After an error there is no file. `place` is where its parity will lie.
    pub fn create(dir: &Path, name: SegmentName, place: ParityPlace) -> Result<Self> {
        let path = dir.join(name.id.file_name(FileKind::Open));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::io(format!("create {}", path.display())))?;
        let made = file
            .write_all_at(&SegmentHeader { name, place }.to_bytes(), 0)
            .map_err(Error::io(format!("write {}", path.display())))
            .and_then(|()| sync_dir(dir));
        if let Err(error) = made {
            // On a full disk each attempt would leave another one.
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(%error, "{} stays until the next open", path.display());
            }
            return Err(error);
        }
        Ok(Self {
            name,
            place,
            dir: dir.to_owned(),
            file: Arc::new(file),
            end: DATA_START,
            entries: Vec::new(),
            unread: Vec::new(),
            sealed: false,
        })
    }

    /// Opens what a crash left of the segment `name` in `dir`: finds its frames, verifies each,
    /// drops those of which nothing can be read, and cuts off what lies behind the last one, up to
    /// where it cannot be read: there may be frames that another attempt finds.
    pub fn recover(dir: &Path, name: SegmentName) -> Result<Recovered> {
        let path = dir.join(name.id.file_name(FileKind::Open));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(Error::io(format!("open {}", path.display())))?;
        let len =
            file.metadata().map_err(Error::io(format!("length of {}", path.display())))?.len();
        let place = place_of(&file, &name)?;
        let scan = scan_frames(&file, &name, DATA_START..len.max(DATA_START), true)?;
        let mut kept: Vec<_> = scan.frames;
        kept.retain(|frame| frame.readable != 0);
        let unread_end = scan.unreadable.last().map_or(DATA_START, |range| range.end);
        let end = kept.last().map_or(DATA_START, |frame| frame.header.entry.frame_range().end);
        let end = end.max(align_up(unread_end, FRAME_ALIGN as u64));
        file.set_len(end).map_err(Error::io(format!("cut off the end of {}", path.display())))?;
        file.write_all_at(&SegmentHeader { name, place }.to_bytes(), 0)
            .map_err(Error::io(format!("write {}", path.display())))?;
        let gaps = scan.gaps.into_iter().filter(|gap| gap.end <= end).collect();
        let entries = kept.iter().map(|frame| frame.header.entry.clone()).collect();
        kept.retain(|frame| !frame.intact);
        let dir = dir.to_owned();
        let (torn_bytes, unreadable) = (len.saturating_sub(end), scan.unreadable);
        let (file, unread) = (Arc::new(file), unreadable.clone());
        let writer = Self { name, place, dir, file, end, entries, unread, sealed: false };
        Ok(Recovered { writer, damaged: kept, gaps, torn_bytes, unreadable })
    }

    /// Which segment this is.
    pub fn name(&self) -> SegmentName {
        self.name
    }

    /// Has its parity lie elsewhere than it was made for.
    pub fn set_place(&mut self, place: ParityPlace) {
        self.place = place;
    }

    /// Where its parity will lie.
    pub fn place(&self) -> ParityPlace {
        self.place
    }

    /// The file, for reading frames and for `sync_data` without holding the writer.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Where the file lies.
    pub fn path(&self) -> PathBuf {
        let kind = if self.sealed { FileKind::Sealed } else { FileKind::Open };
        self.dir.join(self.name.id.file_name(kind))
    }

    /// Length of header and frames so far.
    pub fn len(&self) -> u64 {
        self.end
    }

    /// Whether it has no frames.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The blocks appended so far, in the order of the file.
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Whether a frame of that length can be added without exceeding [`SEGMENT_TARGET`].
    pub fn has_room(&self, frame_len: u64) -> bool {
        let index = (self.entries.len() as u64 + 1) * ENTRY_BOUND + FRAME_HEADER_TYPICAL as u64;
        self.is_empty() || self.end + frame_len + index <= SEGMENT_TARGET
    }

    /// Adds a frame and returns its block's entry. After an error the segment is as before.
    pub fn append(&mut self, frame: &mut Frame) -> Result<IndexEntry> {
        if self.sealed {
            return Err(Error::ReadOnly(format!("segment {} is sealed", self.name.id)));
        }
        let bytes = frame.stamp(&self.name);
        self.file
            .write_all_at(bytes, self.end)
            .map_err(Error::io(format!("append to segment {}", self.name.id)))?;
        let entry = IndexEntry { offset: self.end, ..frame.entry().clone() };
        self.end = entry.frame_range().end;
        debug_assert!(self.end.is_multiple_of(FRAME_ALIGN as u64));
        self.entries.push(entry.clone());
        Ok(entry)
    }

    /// Makes every frame appended so far durable.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(format!("sync segment {}", self.name.id)))
    }

    /// Removes a segment that is not needed, usually because it is empty.
    pub fn discard(self) -> Result<()> {
        let path = self.path();
        std::fs::remove_file(&path).map_err(Error::io(format!("remove {}", path.display())))?;
        let sidecar = self.sidecar_path();
        match std::fs::remove_file(&sidecar) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io(format!("remove {}", sidecar.display()))(error));
            }
            _ => {}
        }
        sync_dir(&self.dir)
    }

    fn sidecar_path(&self) -> PathBuf {
        self.dir.join(self.name.id.file_name(FileKind::Sidecar))
    }

    /// Puts a segment out of the way of which nothing could be read, under a name that is no
    /// segment's; returns that name.
    pub fn set_aside(self) -> Result<PathBuf> {
        let (path, aside) = (self.path(), self.path().with_extension("unreadable"));
        std::fs::rename(&path, &aside)
            .map_err(Error::io(format!("set aside {}", path.display())))?;
        sync_dir(&self.dir)?;
        Ok(aside)
    }

    /// Adds index, checksums, parity and trailers, makes all of it durable and renames the file
    /// from `.open` to `.seg`. Memory: 4 MiB for a full segment.
    pub fn seal(&mut self) -> Result<SealedInfo> {
        self.seal_as(!is_unprotected())
    }

    pub(super) fn seal_as(&mut self, has_parity: bool) -> Result<SealedInfo> {
        if !has_parity && self.place == ParityPlace::Object {
            // There is nothing that could lie apart.
            self.place = ParityPlace::Stores;
        }
        let has_parity = has_parity && self.place != ParityPlace::Stores;
        if self.sealed || self.entries.is_empty() {
            return Err(damaged("segment", "an empty or sealed segment cannot be sealed"));
        }
        let open = self.path();
        let trailer = self.write_footer(has_parity)?;
        self.sync()?;
        self.sealed = true;
        let path = self.path();
        if let Err(error) = std::fs::rename(&open, &path) {
            self.sealed = false;
            return Err(Error::io(format!("rename {}", open.display()))(error));
        }
        sync_dir(&self.dir)?;
        let file_len = trailer.file_len;
        let index = SegmentIndex::new(trailer, self.entries.clone());
        Ok(SealedInfo { path, file_len, index })
    }

    fn write_footer(&self, has_parity: bool) -> Result<Trailer> {
        let (index, twice) = self.choose_index();
        let write = |bytes: &[u8], at| {
            self.file
                .write_all_at(bytes, at)
                .map_err(Error::io(format!("seal segment {}", self.name.id)))
        };
        let align = FRAME_ALIGN as u64;
        let index_a = self.end..self.end + index.len() as u64;
        write(&index, index_a.start)?;
        let protected_end = index_a.end;
        let protected = protected_end - DATA_START;
        let index_b_len = if twice { index.len() as u64 } else { 0 };
        let rest = DATA_START + index_b_len + 2 * TRAILER_LEN as u64;
        let geometry = has_parity.then(|| Geometry::plan(protected, rest));
        let protection = match &geometry {
            Some(geometry) => self.protected(protected, geometry)?,
            None => Protection::default(),
        };

        let table_len = protection.table.len() as u64;
        let parity_len = protection.parity.len() as u64;
        let is_apart = self.place == ParityPlace::Object;
        // In front of the second index, or nothing.
        let inside = |len| if is_apart { 0 } else { len };
        let table_a = span(align_up(protected_end, align), inside(table_len));
        let parity = span(align_up(table_a.end, 64), inside(parity_len));
        let table_b = span(align_up(parity.end, align), inside(table_len));
        let behind = if is_apart { protected_end } else { table_b.end };
        let index_b = span(align_up(behind, align), index_b_len);
        let trailer_at = align_up(index_b.end, align);
        let file_len = trailer_at + TRAILER_LEN as u64;
        let [table_a, parity, table_b] = if is_apart {
            sidecar_parts(file_len, table_len, parity_len)
        } else {
            [table_a, parity, table_b]
        };
        let trailer = Trailer {
            name: self.name,
            place: self.place,
            file_len,
            frames_end: self.end,
            protected_end,
            index_sum: super::short(&blake3::hash(&index)),
            table_sum: super::short(&blake3::hash(&protection.table)),
            index_a,
            index_b: if twice { index_b.clone() } else { 0..0 },
            table_a: table_a.clone(),
            table_b: table_b.clone(),
            parity: parity.clone(),
            geometry,
            blocks: self.entries.len() as u32,
        };
        let page = trailer.to_bytes();
        let index_b_bytes = if twice { index.as_slice() } else { &[] };
        let end = [(index_b.start, index_b_bytes), (trailer_at, &page)];
        let parity = protection.parts(&trailer);
        if is_apart {
            write(&laid_out(protected_end..file_len, &end), protected_end)?;
            self.write_sidecar(&trailer, &parity)?;
        } else {
            let parts = [&parity[..], &end].concat();
            write(&laid_out(protected_end..file_len, &parts), protected_end)?;
        }
        write(&SegmentHeader { name: self.name, place: self.place }.to_bytes(), 0)?;
        write(&page, HEAD_TRAILER as u64)?;
        self.file.set_len(file_len).map_err(Error::io(format!("seal segment {}", self.name.id)))?;
        Ok(trailer)
    }

    /// Parity of the first `protected` bytes. What was written here and does not come back is no zeros:
    /// sums that say so would have a repair write them over it once the disk gives it again.
    fn protected(&self, protected: u64, geometry: &Geometry) -> Result<Protection> {
        let is_known = |range: &Range<u64>| {
            self.unread.iter().any(|known| known.start <= range.start && range.end <= known.end)
        };
        let mut attempts = SEAL_READS;
        loop {
            let protection = protect(&*self.file, DATA_START, protected, geometry)?;
            attempts -= 1;
            match protection.unread.iter().find(|range| !is_known(range)) {
                None => return Ok(protection),
                Some(_) if attempts > 0 => {}
                Some(range) => {
                    let action = format!("read bytes {range:?} of segment {} back", self.name.id);
                    return Err(Error::io(action)(ErrorKind::Other.into()));
                }
            }
        }
    }

    /// Writes what lies apart, durably but for its name, which is synced with the segment's.
    fn write_sidecar(&self, trailer: &Trailer, parity: &[(u64, &[u8])]) -> Result<()> {
        let path = self.sidecar_path();
        let failed = || Error::io(format!("write {}", path.display()));
        let header = sidecar_header(trailer);
        let parts = [&[(trailer.file_len, &header[..])], parity].concat();
        let end = trailer.file_len + trailer.sidecar_len();
        std::fs::write(&path, laid_out(trailer.file_len..end, &parts)).map_err(failed())?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(failed())
    }

    /// The index to write, and whether it stands twice: as much as fits the share of the footer.
    fn choose_index(&self) -> (Vec<u8>, bool) {
        let frames = (self.end - DATA_START).max(FOOTER_LEAST_FRAMES);
        let share = frames * FOOTER_PER_MILLE / 1000 - TABLES_BOUND;
        let full = encode_index(&self.name, &self.entries, true);
        if 2 * full.len() as u64 <= share {
            return (full, true);
        }
        let short = encode_index(&self.name, &self.entries, false);
        let twice = 2 * short.len() as u64 <= share;
        (short, twice)
    }
}

/// The bytes of `range` with those parts in it and zeros between them.
fn laid_out(range: Range<u64>, parts: &[(u64, &[u8])]) -> Buffer {
    let mut bytes = Buffer::default();
    bytes.resize((range.end - range.start) as usize, 0);
    for (at, part) in parts {
        super::le::put(&mut bytes, (at - range.start) as usize, part);
    }
    bytes
}

/// Where an open segment's parity is to lie, as its header says. One that is torn, damaged or
/// cannot be read says nothing.
fn place_of(file: &File, name: &SegmentName) -> Result<ParityPlace> {
    let mut page = [0; HEADER_LEN];
    if let Err(error) = ReadAt::read_exact_at(file, &mut page, 0) {
        tracing::warn!(%error, id = %name.id, "the header of an open segment cannot be read");
    }
    match SegmentHeader::from_bytes(&page) {
        Ok(header) => Ok(header.place),
        Err(Error::Damaged { .. }) => Ok(ParityPlace::Inside),
        Err(error) => Err(error),
    }
}

fn span(start: u64, len: u64) -> Range<u64> {
    start..start + len
}

/// Makes names in `dir` durable.
fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io(format!("sync directory {}", dir.display())))
}
