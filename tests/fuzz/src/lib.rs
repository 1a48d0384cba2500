//! What every fuzz target shares: the shape of a target, and an allocator that ends the process
//! when decoding wants more memory than a decoder may. libFuzzer's own limit of an allocation
//! needs a sanitizer, which needs another compiler.

use std::alloc::{GlobalAlloc, Layout, System};

pub use libfuzzer_sys;

/// Bytes of the largest single allocation: what a decoder may make of any input. Inputs are small,
/// so whatever is larger comes from a length in them that nobody checked.
const LARGEST_ALLOCATION: usize = 64 << 20;

struct Bounded;

// SAFETY: every call is passed on to the system's allocator unchanged, or the process ends.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promise about the layout is the system allocator's condition.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise that the system allocator gave it out.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        // SAFETY: as for `alloc` and `dealloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

fn check(size: usize) {
    if size > LARGEST_ALLOCATION {
        refuse(size);
    }
}

/// Does not allocate on its way to the abort, which libFuzzer reports with the input.
#[cold]
fn refuse(size: usize) -> ! {
    let _ = std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("an allocation of {size} bytes is larger than {LARGEST_ALLOCATION}\n"),
    );
    std::process::abort()
}

/// A fuzz target that gives every input to one function.
#[macro_export]
macro_rules! target {
    ($entry:path) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $entry(data));
    };
}
