//! Rebuilding damaged parts of a sealed segment from its copies and its parity.
//!
//! Reed-Solomon trusts the shards it is given, so each shard is checked before it is used and each
//! result after; what does not match its checksum is never handed out. Nothing is written here: a
//! repair is a list of patches, for the file in place or for a copy of it. Bytes that cannot be
//! read count as damaged. Memory: the patches and ten shards.
//!
//! What lies in a sidecar is at the offsets that the trailer gives it, behind the segment. A lost
//! one is made anew when the bytes under it still have the checksums that the trailer vouches for.
//! Where neither table is left, and where there is no parity, frames tell what is damaged.

use std::ops::Range;

use crate::block::BlockId;
use crate::error::{Error, Result};

use super::bytes_at::ReadAt;
use super::entry::IndexEntry;
use super::frame::verify_frame;
use super::header::{DATA_START, HEAD_TRAILER, HEADER_LEN, SegmentHeader, TRAILER_LEN, Trailer};
use super::index::{SegmentIndex, decode_index};
use super::parity::{Geometry, protect};
use super::patched::Patched;
use super::place::{Joined, ParityPlace, sidecar_header};
use super::shard_sum::{SHARD_SUM_LEN, ShardSum};
use super::unprotected::is_unprotected;
use super::{SegmentName, damaged};

/// A part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The page at the start.
    Header,
    /// The trailer behind the header.
    HeadTrailer,
    /// A data shard: frames or the first index.
    Data,
    /// The first copy of the index, which lies in data shards too.
    IndexA,
    /// The first table of checksums.
    TableA,
    /// A parity shard.
    Parity,
    /// The second table of checksums.
    TableB,
    /// The second copy of the index.
    IndexB,
    /// The trailer at the end.
    EndTrailer,
    /// Bytes between parts, which are zeros.
    Padding,
    /// Bytes after the end of the segment.
    Excess,
    /// The page at the start of a sidecar.
    SidecarHeader,
    /// Bytes after the end of a sidecar.
    SidecarExcess,
}

/// Something that is not as it was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What.
    pub part: Part,
    /// Where in the file.
    pub range: Range<u64>,
}

/// Bytes that belong at a place of the file. They were verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where in the file.
    pub offset: u64,
    /// What belongs there.
    pub bytes: Vec<u8>,
}

/// What was found in a segment and what makes it whole again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// Everything that is not as it was sealed.
    pub damage: Vec<Damage>,
    /// What of it cannot be rebuilt.
    pub lost: Vec<Damage>,
    /// What has to be written to rebuild the rest.
    pub patches: Vec<Patch>,
    /// Length of the sealed file.
    pub file_len: u64,
    /// Length of its sidecar, whose parts lie behind `file_len`; 0 where it has none.
    pub sidecar_len: u64,
}

impl Repair {
    /// Whether the segment is as it was sealed.
    pub fn is_intact(&self) -> bool {
        self.damage.is_empty()
    }

    /// Whether the segment itself is as it was sealed, whatever became of its sidecar.
    pub fn is_segment_intact(&self) -> bool {
        self.damage.iter().all(|damage| self.is_in_sidecar(damage))
    }

    /// Whether the sidecar is as it was sealed; a segment without one has nothing to lack.
    pub fn is_sidecar_intact(&self) -> bool {
        !self.damage.iter().any(|damage| self.is_in_sidecar(damage))
    }

    fn is_in_sidecar(&self, damage: &Damage) -> bool {
        self.sidecar_len > 0 && damage.part != Part::Excess && damage.range.start >= self.file_len
    }
}

/// Verifies every frame of the index: the blocks of which not every byte is right, and why. Frames
/// that cannot be read are among them.
pub fn check_frames<R: ReadAt + ?Sized>(bytes: &R, index: &SegmentIndex) -> Vec<(BlockId, Error)> {
    let checked = index.entries().iter().map(|entry| (entry.id, entry));
    let checked = checked.map(|(id, entry)| (id, check_frame(bytes, &index.name(), entry)));
    checked.filter_map(|(id, checked)| Some((id, checked.err()?))).collect()
}

/// Verifies the frame of one block in the segment `name`.
pub fn check_frame<R: ReadAt + ?Sized>(
    bytes: &R,
    name: &SegmentName,
    entry: &IndexEntry,
) -> Result<()> {
    let mut frame = vec![0; entry.frame_len() as usize];
    bytes
        .read_exact_at(&mut frame, entry.offset)
        .map_err(Error::io(format!("read block {}", entry.id)))?;
    let header = verify_frame(name, entry.offset, &frame)?;
    if header.entry.block_ref() == entry.block_ref() {
        return Ok(());
    }
    Err(damaged("frame", "it contradicts the index"))
}

/// Checks every part of the sealed segment `name` and rebuilds what is damaged.
///
/// An error means that neither trailer is left, so that nothing is known about the rest, or less
/// than half of the file; frames can then still be found with [`super::scan_frames`].
pub fn repair<R: ReadAt + ?Sized>(bytes: &R, name: &SegmentName) -> Result<Repair> {
    let len = bytes.len().map_err(Error::io(format!("length of segment {}", name.id)))?;
    let trailer = find_trailer(bytes, name, len)?;
    if trailer.file_len / 2 > len {
        return Err(damaged("segment", format!("{len} of {} bytes are left", trailer.file_len)));
    }
    let sidecar_len = trailer.sidecar_len();
    let found = Repair { file_len: trailer.file_len, sidecar_len, ..Repair::default() };
    let mut found = if sidecar_len == 0 {
        Work { bytes, len, trailer: &trailer, found }.look(name)
    } else {
        let joined = Joined::new(bytes, trailer.file_len, sidecar_len);
        let len = trailer.file_len + sidecar_len;
        Work { bytes: &joined, len, trailer: &trailer, found }.look(name)
    };
    if len > trailer.file_len {
        found.damage.push(Damage { part: Part::Excess, range: trailer.file_len..len });
    }
    let sidecar_end = trailer.file_len + sidecar_len;
    let excess = bytes.sidecar_len().unwrap_or(0).saturating_sub(sidecar_len);
    if sidecar_len > 0 && excess > 0 {
        let range = sidecar_end..sidecar_end + excess;
        found.damage.push(Damage { part: Part::SidecarExcess, range });
    }
    found.damage.sort_by_key(|damage| damage.range.start);
    found.patches.sort_by_key(|patch| patch.offset);
    Ok(found)
}

fn find_trailer<R: ReadAt + ?Sized>(bytes: &R, name: &SegmentName, len: u64) -> Result<Trailer> {
    let at = |offset: Option<u64>| {
        let mut page = [0; TRAILER_LEN];
        let offset = offset.ok_or_else(|| damaged("segment trailer", "the file is too short"))?;
        bytes
            .read_exact_at(&mut page, offset)
            .map_err(|error| damaged("segment trailer", error.to_string()))?;
        Trailer::from_bytes(&page, name)
    };
    match at(Some(HEAD_TRAILER as u64)) {
        Ok(trailer) => Ok(trailer),
        Err(Error::Damaged { .. }) => at(len.checked_sub(TRAILER_LEN as u64)),
        Err(error) => Err(error),
    }
}

struct Work<'a, R: ?Sized> {
    bytes: &'a R,
    len: u64,
    trailer: &'a Trailer,
    found: Repair,
}

/// Which shards of a segment match a checksum, and the checksums.
struct Sums {
    kind: ShardSum,
    /// One or two tables; the second only where neither is known to be whole.
    tables: Vec<Vec<u8>>,
}

impl Sums {
    /// The checksum in the tables that the shard matches.
    fn matching(&self, number: u32, shard: &[u8]) -> Option<[u8; SHARD_SUM_LEN]> {
        let sum = self.kind.of(shard);
        let at = number as usize * SHARD_SUM_LEN;
        let known = self.tables.iter().any(|table| table[at..at + SHARD_SUM_LEN] == sum);
        known.then_some(sum)
    }
}

impl<R: ReadAt + ?Sized> Work<'_, R> {
    fn look(mut self, name: &SegmentName) -> Repair {
        self.pages(name);
        self.index_from_second();
        match self.trailer.geometry {
            Some(geometry) => self.shards(&geometry),
            // What the switch of a benchmark leaves out is not to cost anything.
            None if is_unprotected() => {}
            None => self.frames(),
        }
        self.second_index();
        self.padding();
        self.found
    }

    /// Bytes of the file as patched so far; zeros where the file ends or cannot be read.
    fn read(&self, range: Range<u64>) -> Vec<u8> {
        let mut buf = vec![0; (range.end - range.start) as usize];
        Patched::new(self.bytes, &self.found.patches, self.len).fill(&mut buf, range.start);
        buf
    }

    fn patch(&mut self, part: Part, offset: u64, bytes: Vec<u8>) {
        let range = offset..offset + bytes.len() as u64;
        self.found.damage.push(Damage { part, range });
        self.found.patches.push(Patch { offset, bytes });
    }

    /// Compares a part whose bytes are known.
    fn expect(&mut self, part: Part, offset: u64, expected: &[u8]) {
        let range = offset..offset + expected.len() as u64;
        if range.end > self.len || self.read(range) != expected {
            self.patch(part, offset, expected.to_vec());
        }
    }

    fn pages(&mut self, name: &SegmentName) {
        let header = SegmentHeader { name: *name, place: self.trailer.place }.to_bytes();
        self.expect(Part::Header, 0, &header[..HEADER_LEN]);
        let page = self.trailer.to_bytes();
        self.expect(Part::HeadTrailer, HEAD_TRAILER as u64, &page);
        let rest = (HEAD_TRAILER + TRAILER_LEN) as u64;
        self.expect(Part::Padding, rest, &header[rest as usize..]);
        self.expect(Part::EndTrailer, self.trailer.file_len - TRAILER_LEN as u64, &page);
        if self.trailer.place == ParityPlace::Object {
            let header = sidecar_header(self.trailer);
            self.expect(Part::SidecarHeader, self.trailer.file_len, &header);
        }
    }

    fn is_index(&self, bytes: &[u8]) -> bool {
        super::short(&blake3::hash(bytes)) == self.trailer.index_sum
    }

    /// A damaged first index is taken from the second: fewer shards are left to rebuild.
    fn index_from_second(&mut self) {
        let (a, b) = (self.trailer.index_a.clone(), self.trailer.index_b.clone());
        if b.is_empty() || self.is_index(&self.read(a.clone())) {
            return;
        }
        let second = self.read(b);
        if self.is_index(&second) {
            self.patch(Part::IndexA, a.start, second);
        }
    }

    /// The second index follows the first, which is rebuilt by now if it can be.
    fn second_index(&mut self) {
        let (a, b) = (self.trailer.index_a.clone(), self.trailer.index_b.clone());
        let first = self.read(a.clone());
        if self.is_index(&first) {
            if !b.is_empty() {
                self.expect(Part::IndexB, b.start, &first);
            }
            return;
        }
        self.found.lost.push(Damage { part: Part::IndexA, range: a });
        if !b.is_empty() {
            let lost = Damage { part: Part::IndexB, range: b };
            self.found.damage.push(lost.clone());
            self.found.lost.push(lost);
        }
    }

    fn padding(&mut self) {
        let trailer = self.trailer;
        let start = std::iter::once(trailer.protected_end..trailer.protected_end);
        let parts: Vec<_> = start.chain(trailer.parts_behind()).collect();
        for pair in parts.windows(2) {
            self.expect(
                Part::Padding,
                pair[0].end,
                &vec![0; (pair[1].start - pair[0].end) as usize],
            );
        }
    }

    /// Checks all shards and rebuilds what is damaged, stripe by stripe; then the tables.
    fn shards(&mut self, geometry: &Geometry) {
        let trailer = self.trailer;
        let copies =
            [trailer.table_a.clone(), trailer.table_b.clone()].map(|range| self.read(range));
        let whole = |table: &&Vec<u8>| super::short(&blake3::hash(table)) == trailer.table_sum;
        let tables = match copies.iter().find(whole) {
            Some(table) => vec![table.clone()],
            None => match self.table_of_data(geometry) {
                Some(table) => vec![table],
                // Each checksum may still be right in one of them; a shard that matches either is
                // good, since no damaged one matches by chance.
                None => copies.to_vec(),
            },
        };
        let sums = Sums { kind: geometry.sum, tables };
        let mut table = vec![0; geometry.table_len() as usize];
        let mut bad = vec![Vec::new(); usize::from(geometry.stripes)];
        for number in 0..geometry.shards() {
            match sums.matching(number, &self.shard(geometry, number)) {
                Some(sum) => super::le::put(&mut table, number as usize * SHARD_SUM_LEN, &sum),
                None => bad[(number % u32::from(geometry.stripes)) as usize].push(number),
            }
        }
        if bad.iter().map(Vec::len).sum::<usize>() == geometry.shards() as usize {
            return self.without_tables();
        }
        for (stripe, bad) in bad.iter().enumerate().filter(|(_, bad)| !bad.is_empty()) {
            for (number, shard) in self.rebuild(geometry, stripe as u32, bad, &sums) {
                let sum = geometry.sum.of(&shard);
                super::le::put(&mut table, number as usize * SHARD_SUM_LEN, &sum);
                self.patch_shard(geometry, number, shard);
            }
        }
        if whole(&&table) {
            self.expect(Part::TableA, trailer.table_a.start, &table);
            self.expect(Part::TableB, trailer.table_b.start, &table);
            return;
        }
        // Some shard is lost, yet one copy of the table may be whole and mend the other.
        let known = copies.iter().find(whole).cloned();
        for (part, range) in
            [(Part::TableA, trailer.table_a.clone()), (Part::TableB, trailer.table_b.clone())]
        {
            if let Some(known) = &known {
                self.expect(part, range.start, known);
            } else {
                self.found.damage.push(Damage { part, range: range.clone() });
                self.found.lost.push(Damage { part, range });
            }
        }
    }

    /// The table of checksums, computed from what lies under parity, if the trailer vouches for it:
    /// then all of that is as it was sealed.
    fn table_of_data(&self, geometry: &Geometry) -> Option<Vec<u8>> {
        let bytes = Patched::new(self.bytes, &self.found.patches, self.len);
        let protected = self.trailer.protected_end - DATA_START;
        let table = protect(&bytes, DATA_START, protected, geometry).ok()?.table;
        (super::short(&blake3::hash(&table)) == self.trailer.table_sum).then_some(table)
    }

    /// What is left to say where no checksum of any shard is: parity is lost, and of the rest what
    /// frames tell.
    fn without_tables(&mut self) {
        let trailer = self.trailer;
        for (part, range) in [
            (Part::TableA, &trailer.table_a),
            (Part::Parity, &trailer.parity),
            (Part::TableB, &trailer.table_b),
        ] {
            let lost = Damage { part, range: range.clone() };
            self.found.damage.push(lost.clone());
            self.found.lost.push(lost);
        }
        self.frames();
    }

    /// Checks every frame of the index, where nothing else tells of the bytes in them and nothing
    /// makes them anew. Without the index nothing can be said for any.
    fn frames(&mut self) {
        let index = self.read(self.trailer.index_a.clone());
        let Ok(entries) = decode_index(&index, self.trailer) else {
            let all = Damage { part: Part::Data, range: DATA_START..self.trailer.frames_end };
            self.found.damage.push(all.clone());
            return self.found.lost.push(all);
        };
        let patches = std::mem::take(&mut self.found.patches);
        let bytes = Patched::new(self.bytes, &patches, self.len);
        let name = self.trailer.name;
        let is_bad = |entry: &&IndexEntry| check_frame(&bytes, &name, entry).is_err();
        let bad = entries.iter().filter(is_bad);
        let bad: Vec<_> =
            bad.map(|entry| Damage { part: Part::Data, range: entry.frame_range() }).collect();
        self.found.patches = patches;
        self.found.damage.extend(bad.iter().cloned());
        self.found.lost.extend(bad);
    }

    fn shard_range(&self, geometry: &Geometry, number: u32) -> Range<u64> {
        let len = u64::from(geometry.shard_len);
        if number < geometry.data_shards {
            let start = DATA_START + u64::from(number) * len;
            start..(start + len).min(self.trailer.protected_end)
        } else {
            let start = self.trailer.parity.start + u64::from(number - geometry.data_shards) * len;
            start..start + len
        }
    }

    /// A shard, filled up with zeros.
    fn shard(&self, geometry: &Geometry, number: u32) -> Vec<u8> {
        let mut shard = self.read(self.shard_range(geometry, number));
        shard.resize(geometry.shard_len as usize, 0);
        shard
    }

    fn patch_shard(&mut self, geometry: &Geometry, number: u32, mut shard: Vec<u8>) {
        let range = self.shard_range(geometry, number);
        shard.truncate((range.end - range.start) as usize);
        let part = if number < geometry.data_shards { Part::Data } else { Part::Parity };
        self.patch(part, range.start, shard);
    }

    fn lose(&mut self, geometry: &Geometry, number: u32) {
        let part = if number < geometry.data_shards { Part::Data } else { Part::Parity };
        let lost = Damage { part, range: self.shard_range(geometry, number) };
        self.found.damage.push(lost.clone());
        self.found.lost.push(lost);
    }

    /// The damaged shards of a stripe, verified; those that cannot be rebuilt are recorded as lost.
    fn rebuild(
        &mut self,
        geometry: &Geometry,
        stripe: u32,
        bad: &[u32],
        sums: &Sums,
    ) -> Vec<(u32, Vec<u8>)> {
        let stripes = u32::from(geometry.stripes);
        let shard_len = geometry.shard_len as usize;
        let code = geometry.code(stripe);
        let members: Vec<u32> = geometry.members(stripe).collect();
        let (data, parity) = members.split_at(geometry.data_in(stripe) as usize);
        let (bad_data, bad_parity): (Vec<u32>, Vec<u32>) =
            bad.iter().partition(|number| **number < geometry.data_shards);
        let rows: Vec<usize> = (0..parity.len())
            .filter(|&row| !bad_parity.contains(&parity[row]))
            .take(bad_data.len())
            .collect();
        if rows.len() < bad_data.len() {
            bad.iter().for_each(|&number| self.lose(geometry, number));
            return Vec::new();
        }
        let mut sum = vec![vec![0; shard_len]; parity.len()];
        for &number in data.iter().filter(|number| !bad_data.contains(number)) {
            code.add((number / stripes) as usize, &self.shard(geometry, number), &mut sum);
        }
        let difference: Vec<Vec<u8>> = rows
            .iter()
            .map(|&row| {
                let stored = self.shard(geometry, parity[row]);
                stored.iter().zip(&sum[row]).map(|(a, b)| a ^ b).collect()
            })
            .collect();
        let lost: Vec<usize> = bad_data.iter().map(|number| (number / stripes) as usize).collect();
        let mut rebuilt = Vec::new();
        for ((number, index), shard) in
            bad_data.iter().zip(&lost).zip(code.solve(&lost, &rows, &difference))
        {
            code.add(*index, &shard, &mut sum);
            rebuilt.push((*number, shard));
        }
        for number in bad_parity {
            let row = parity.iter().position(|p| *p == number).expect("it is of this stripe");
            rebuilt.push((number, std::mem::take(&mut sum[row])));
        }
        // With both tables damaged a good shard may have no checksum left; then it was rebuilt
        // from others and cannot be confirmed either.
        let (good, unconfirmed): (Vec<_>, Vec<_>) = rebuilt
            .into_iter()
            .partition(|(number, shard)| sums.matching(*number, shard).is_some());
        unconfirmed.iter().for_each(|(number, _)| self.lose(geometry, *number));
        good
    }
}
