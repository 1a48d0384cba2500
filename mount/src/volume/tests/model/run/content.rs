//! Calls that change content.

use std::time::Duration;

use firn_tiering::Clock;

use super::super::super::fake::{READ_WRITE, ROOT};
use super::super::ops::{Op, Slot};
use super::super::reference::Cell;
use super::{Runner, Subject, agree};
use crate::core::Core;
use crate::error::FsError;
use crate::types::{Caller, Fallocate, Ino, OpenMode, SetAttr, SetTime};

impl<S: Subject> Runner<'_, S> {
    pub(super) fn change_data(&mut self, op: &Op) {
        let (Op::Write(slot, ..)
        | Op::Append(slot, _)
        | Op::Truncate(slot, _)
        | Op::Fallocate(slot, ..)
        | Op::SetMtime(slot)) = *op
        else {
            return;
        };
        let Some((ino, handle)) = self.open[slot] else { return };
        let (volume, wait) = (self.subject.volume(), self.wait());
        let now = self.subject.clock().now();
        let clean = self.reference.is_clean(ino);
        self.byte = self.byte % 250 + 1;
        let byte = self.byte;
        match *op {
            Op::Write(_, at, len) => {
                let data = vec![byte; len as usize];
                let someone = Caller { uid: 7, gid: 7, pid: 0 };
                volume.write(&someone, ino, handle, at, &data, false, false, wait).unwrap();
                self.reference.change(ino, |file| {
                    file.paint(at..at + len, Some(Cell::Data(byte)));
                    file.size = file.size.max(at + len);
                    file.mtime = now;
                });
            }
            Op::Append(_, len) => {
                let mode = OpenMode { append: true, ..READ_WRITE };
                let appender = volume.open(&ROOT, ino, mode, wait).unwrap();
                let data = vec![byte; len as usize];
                volume.write(&ROOT, ino, appender, 0, &data, false, false, wait).unwrap();
                volume.release(ino, appender);
                self.reference.change(ino, |file| {
                    file.paint(file.size..file.size + len, Some(Cell::Data(byte)));
                    file.size += len;
                    file.mtime = now;
                });
            }
            Op::Truncate(_, size) => {
                let changes = SetAttr { size: Some(size), ..SetAttr::default() };
                volume.setattr(&ROOT, ino, &changes, wait).unwrap();
                self.reference.change(ino, |file| {
                    file.resize(size);
                    file.mtime = now;
                });
            }
            Op::Fallocate(_, at, len, what) => {
                volume.fallocate(&ROOT, ino, handle, at, len, what, wait).unwrap();
                self.fallocated(ino, at, len, what);
            }
            _ => {
                let old = now - Duration::from_secs(1 << 20);
                let changes = SetAttr { mtime: Some(SetTime::At(old)), ..SetAttr::default() };
                volume.setattr(&ROOT, ino, &changes, wait).unwrap();
                self.reference.change(ino, |file| file.mtime = old);
                if clean {
                    // With no data to wait for, it is in the namespace at once.
                    self.reference.committed(ino);
                }
            }
        }
    }

    fn fallocated(&mut self, ino: Ino, at: u64, len: u64, what: Fallocate) {
        let now = self.subject.clock().now();
        let range = at..at + len;
        self.reference.change(ino, |file| {
            let keep = match what {
                Fallocate::Allocate { keep_size } => {
                    for hole in file.holes(range.clone()) {
                        if !hole.is_empty() {
                            file.paint(hole, Some(Cell::Unwritten));
                        }
                    }
                    keep_size
                }
                Fallocate::PunchHole => {
                    file.paint(range.clone(), None);
                    true
                }
                Fallocate::ZeroRange { keep_size } => {
                    file.paint(range.clone(), Some(Cell::Unwritten));
                    keep_size
                }
            };
            if !keep {
                file.size = file.size.max(range.end);
            }
            file.mtime = now;
        });
    }

    pub(super) fn copy(&mut self, from: (Slot, u64), to: (Slot, u64), len: u64) {
        let (Some(source), Some(target)) = (self.open[from.0], self.open[to.0]) else { return };
        let (at, start) = (from.1, to.1);
        let now = self.subject.clock().now();
        let size = self.reference.file(source.0).size;
        let wanted_len = len.min(size.saturating_sub(at));
        let overlap = source.0 == target.0 && at < start + wanted_len && start < at + wanted_len;
        let copied = self.volume().copy_file_range(
            &ROOT,
            (source.0, source.1, at),
            (target.0, target.1, start),
            len,
            self.wait(),
        );
        agree(&copied, (overlap && wanted_len > 0).then_some(FsError::Invalid("overlap")));
        let Ok(copied) = copied else { return };
        assert_eq!(copied, wanted_len);
        if copied == 0 {
            return;
        }
        let runs = self.reference.file(source.0).within(at..at + copied);
        self.reference.change(target.0, |file| {
            file.paint(start..start + copied, None);
            for (run, cell) in runs {
                if cell != Cell::Unwritten {
                    file.paint(run.start - at + start..run.end - at + start, Some(cell));
                }
            }
            file.size = file.size.max(start + copied);
            file.mtime = now;
        });
    }
}
