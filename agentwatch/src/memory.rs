//! Memory that the allocator holds.

/// Bytes from which on a piece of memory is the system's again as soon as it is free.
const LARGE_BYTES: libc::c_int = 256 << 10;
/// Free bytes at the end of the heap that are kept for what comes next.
const KEPT_BYTES: libc::c_int = 1 << 20;

/// Keeps large pieces out of the heap, once for the whole process.
///
/// By itself the allocator puts pieces into the heap that are as large as one that was freed before. There the lists that
/// a policy is compiled with, of some megabytes each, leave holes between what is kept, and are copied where they grow.
pub fn keep_large_pieces_apart() {
    for (what, bytes) in [(libc::M_MMAP_THRESHOLD, LARGE_BYTES), (libc::M_TRIM_THRESHOLD, KEPT_BYTES)] {
        // SAFETY: sets a number of the allocator. Where it refuses, only more memory is held.
        unsafe { libc::mallopt(what, bytes) };
    }
}

/// Gives free memory back to the system. Reading a policy, the kernel's type information or all of `/proc` takes much of
/// which little is kept: without this it would stay with the process, and what is done next would come on top of it.
///
/// Takes some milliseconds at most.
pub fn release() {
    // SAFETY: no arguments that matter, no state but the allocator's own; safe to call at any time.
    unsafe { libc::malloc_trim(0) };
}
